"""Structured output: what ``response_format`` asks for, and whether a text is it; pure.

Called by the executor's loop, which asks the model again or gives up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import orjson

from edwin.errors import InvalidRequest, shorten
from edwin.executor.misfits import OPTIONS, Misfits, parts, referred
from edwin.types import Message, TurnFinished
from edwin.violations import dotted

PARAM: Final = "response_format.json_schema.schema"

MAX_FAULTS: Final = 3
"""How many faults of one answer are told."""

MAX_DEPTH: Final = 128
"""Levels of nesting that an answer may have."""

MAX_SCHEMA_BYTES: Final = 256 * 1024
MAX_PARTS: Final = 10_000
"""Parts that a schema may have, where each ``$ref`` counts as all that it means."""

MAX_PATTERNS: Final = 64
"""Different patterns that a schema may have; some take milliseconds to compile."""

# A part looks at a value in some 10 ns, and the loop waits meanwhile.
_MAX_WORK: Final = 20_000_000
_MAX_NESTING: Final = 400
_ALONE: Final = "no code fence, and no text before or after it"


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer has to look like.

    Attributes:
        schema: JSON Schema of the document; None: any object.
        name: What the client calls it; may be empty.
        description: What the client says of it; may be empty.
        strict: Whether the client asked its provider to keep to it exactly; the
            answer is checked either way.

    """

    schema: Mapping[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool = False
    _validator: Any = field(default=None, repr=False, compare=False)
    _parts: int = field(default=1, repr=False, compare=False)

    def counts(self, turn: TurnFinished) -> bool:
        """Return whether the message of *turn* has to fit.

        An answer that was cut off or filtered, calls of tools and refusals go to the
        client as they are.
        """
        message: Message = turn.message or {}
        return (
            turn.finish_reason == "stop"
            and not message.get("tool_calls")
            and not message.get("refusal")
        )

    def fault(self, text: str) -> str | None:
        """Return what is wrong with *text*, the model's answer; None: nothing is.

        The words are for the model and for the client: places and rules, at most
        ``MAX_FAULTS`` of them, and never more than a short piece of a value.  The
        client's SDK parses the text as it stands, so a code fence around it is a
        fault; blanks around it are not.
        """
        if not text or text.isspace():
            return "it is empty"
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            why = f"{error.msg}, line {error.lineno}, column {error.colno}"
            if text.lstrip().startswith("```"):
                why = f"it stands in a code fence: {why}"
            return f"it is not JSON: {why}"
        if self.schema is None:
            return None if isinstance(document, dict) else "it is not a JSON object"
        depth, values = _measured(document)
        if depth > MAX_DEPTH:
            return f"it has more than {MAX_DEPTH} levels of nesting"
        if values * self._parts > _MAX_WORK:
            return f"it has {values} values, too many to be checked against the schema"
        if self._validator.is_valid(document):
            return None
        found = islice(dict.fromkeys(_few(self.schema, document)), MAX_FAULTS)
        return "; ".join(found) or "it does not fit the schema"

    def again(self, text: str, fault: str) -> list[Message]:
        """Return the messages that ask for another answer, *text* having this *fault*.

        They come after those that *text* answered.
        """
        asked: Message = {
            "role": "user",
            "content": f"That is not what was asked for: {fault}. Answer again, with "
            f"the whole JSON document and nothing else: {_ALONE}.",
        }
        if not text or text.isspace():
            # Providers refuse an empty message.
            return [asked]
        return [{"role": "assistant", "content": text}, asked]

    @property
    def instructions(self) -> str:
        """What a model is told whose provider has no ``response_format``."""
        if self.schema is None:
            return f"Answer with one JSON object and nothing else: {_ALONE}."
        about = ": ".join(filter(None, (self.name, self.description)))
        about = f" ({about})" if about else ""
        schema = orjson.dumps(dict(self.schema)).decode()
        return (
            f"Answer with one JSON document{about} and nothing else: {_ALONE}. "
            f"It has to be valid by this JSON Schema:\n{schema}"
        )


_OBJECT: Final = Form()


def wanted(params: Mapping[str, Any]) -> Form | None:
    """Return what ``response_format`` of *params* asks for; None: any text will do.

    Raises:
        InvalidRequest: If its schema is none of JSON Schema's draft 2020-12, is larger
            than the limits above, or refers to anything but its own parts.

    """
    asked = params.get("response_format")
    if not asked:
        return None
    if asked.get("type") == "json_object":
        return _OBJECT
    if asked.get("type") != "json_schema":
        return None
    given = asked.get("json_schema") or {}
    schema = given.get("schema")
    # Neither is needed, and both would have a say in what the schema means.
    bare = {k: v for k, v in (schema or {}).items() if k not in ("$schema", "$id")}
    weight = _checked(bare)
    try:
        validator = jsonschema_rs.Draft202012Validator(
            bare, retriever=_refuse, pattern_options=OPTIONS
        )
    except ValueError as error:
        raise _invalid(f"it is not valid: {_why(error)}") from None
    return Form(
        schema=bare,
        name=given.get("name") or "",
        description=given.get("description") or "",
        strict=bool(given.get("strict")),
        _validator=validator,
        _parts=weight,
    )


def _few(schema: Mapping[str, Any], document: Any) -> list[str]:
    return list(islice(Misfits(schema).find(document), 2 * MAX_FAULTS))


def _checked(schema: Mapping[str, Any]) -> int:
    """Return how many parts *schema* has, each ``$ref`` written out.

    Raises:
        InvalidRequest: If it is too large, or refers to what is not in it.

    """
    size = len(orjson.dumps(schema))
    if size > MAX_SCHEMA_BYTES:
        raise _invalid(f"it has {size} bytes, more than {MAX_SCHEMA_BYTES}")
    weights: dict[int, int] = {}
    patterns: set[str] = set()

    def weigh(part: Any, depth: int) -> int:
        if not isinstance(part, dict):
            return 1
        if id(part) in weights:
            return weights[id(part)]
        if depth > _MAX_NESTING:
            raise _invalid(f"it has more than {_MAX_NESTING} levels of nesting")
        # What refers back to it adds nothing: the validator remembers its verdicts.
        weights[id(part)] = 0
        weight = 1
        for inner in _inner(schema, part, patterns, nested=depth > 0):
            weight += weigh(inner, depth + 1)
            if weight > MAX_PARTS:
                raise _invalid(
                    f"it has more than {MAX_PARTS} parts, each '$ref' written out"
                )
        weights[id(part)] = weight
        return weight

    weight = weigh(schema, 0)
    if len(patterns) > MAX_PATTERNS:
        raise _invalid(f"it has more than {MAX_PATTERNS} different patterns")
    return weight


def _inner(
    root: Mapping[str, Any], part: dict[str, Any], patterns: set[str], *, nested: bool
) -> list[Any]:
    """Return the schemas that *part* is made of, and note its patterns."""
    for keyword in ("$dynamicRef", "$id"):
        if keyword in part and (nested or keyword != "$id"):
            raise _invalid(f"'{keyword}' is not supported within it")
    found = [inner for _, inner in parts(part)]
    if "$ref" in part:
        try:
            found.append(referred(root, part["$ref"]))
        except LookupError as error:
            shown = shorten(str(part["$ref"]))
            raise _invalid(
                f"'$ref' has to name a part of it, as #/$defs/item does; "
                f"of {shown!r}, {error.args[0]}"
            ) from None
    if isinstance(part.get("pattern"), str):
        patterns.add(part["pattern"])
    if isinstance(part.get("patternProperties"), dict):
        patterns.update(part["patternProperties"])
    return found


def _measured(document: Any) -> tuple[int, int]:
    """Return how deep *document* is nested, and how many values it has."""
    depth, values = 0, 1
    row = [document]
    while row := [node for node in row if isinstance(node, dict | list)]:
        depth += 1
        row = [
            inner
            for node in row
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
        values += len(row)
    return depth, values


def _why(error: ValueError) -> str:
    """Return in one line why a schema could not be compiled, and where."""
    # The lines that follow the first repeat the schema.
    said = shorten(str(error).partition("\n")[0], 200)
    where = shorten(dotted(getattr(error, "instance_path", ())), 100)
    return f"{where}: {said}" if where else said


def _refuse(uri: str) -> Any:
    raise LookupError(f"{shorten(uri)!r} is another document")


def _invalid(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid schema for 'response_format': {why}.",
        param=PARAM,
        code="invalid_value",
    )
