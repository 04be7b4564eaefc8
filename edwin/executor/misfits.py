"""Where a JSON document does not fit its schema, in words; pure.

Used by ``structured``.  The validator's own list of errors is not: in a schema that
refers to itself it grows exponentially with the document's depth, where its verdict
alone does not.  So the schema is walked here, in the way a reader would, and the
validator is asked for verdicts on parts of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

import jsonschema_rs

from edwin.errors import shorten
from edwin.violations import Steps, dotted

OPTIONS: Final = jsonschema_rs.FancyRegexOptions(
    backtrack_limit=10_000, size_limit=2 * 1024 * 1024
)
"""What a pattern may cost: one that backtracks for longer does not match."""

_ROOT: Final = "edwin:form"
_MAX_STEPS: Final = 150
_MAX_VALUE: Final = 40
_MAX_TEXT: Final = 240
# Stands for the value in the validator's messages; no message has it otherwise.
_VALUE: Final = "\0"

_ONE: Final = (
    *("not", "if", "then", "else", "contains", "items", "propertyNames"),
    *("additionalProperties", "unevaluatedItems", "unevaluatedProperties"),
)
_LISTED: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED: Final = (
    *("properties", "patternProperties", "dependentSchemas"),
    "dependencies",  # of former drafts; the validator still goes by it
)
_FLAT: Final = (
    *("type", "enum", "const", "required", "dependentRequired", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "uniqueItems"),
    *("minProperties", "maxProperties"),
)
# Keywords, and those that are judged with them: of these no single value is at fault.
_WHOLE: Final = (
    ("not",),
    ("if", "then", "else"),
    ("contains", "minContains", "maxContains"),
    ("propertyNames",),
    ("dependentSchemas",),
    ("patternProperties", "properties", "additionalProperties"),
)


def parts(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield what *schema* is made of, each part with the end of its JSON pointer."""
    if not isinstance(schema, dict):
        return
    for keyword in _ONE:
        if keyword in schema:
            yield f"/{keyword}", schema[keyword]
    for keyword in _LISTED:
        listed = schema.get(keyword)
        if isinstance(listed, list):
            for place, part in enumerate(listed):
                yield f"/{keyword}/{place}", part
    for keyword in _NAMED:
        named = schema.get(keyword)
        if isinstance(named, dict):
            for name, part in named.items():
                yield f"/{keyword}/{_escaped(name)}", part


def referred(root: Any, reference: str) -> Any:
    """Return the part of *root* that *reference* means, ``#`` or ``#/$defs/item``.

    Raises:
        LookupError: If there is none, or it is no such reference.

    """
    if not isinstance(reference, str) or not (reference + "/").startswith("#/"):
        raise LookupError("it does not begin with '#/'")
    found = root
    for step in unquote(reference).split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(step) if isinstance(found, list) else step]
        except (LookupError, TypeError, ValueError):
            raise LookupError("there is no such part") from None
    return found


class Misfits:
    """Finds what is wrong with documents.

    Args:
        schema: One that can be compiled; every ``$ref`` in it can be resolved by
            :func:`referred`.

    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._registry = jsonschema_rs.Registry([(_ROOT, dict(schema))])
        self._checks: dict[tuple[str, Sequence[str]], Any] = {}
        self._whole: dict[str, Any] = {}

    def find(self, document: Any) -> Iterator[str]:
        """Yield the faults of *document*, each in one line without long values.

        There may be none though the document is not valid.
        """
        yield from _Walk(self).node("#", self._schema, document, ())

    def referred(self, reference: str) -> Any:
        """Return the part of the schema that *reference* means."""
        return referred(self._schema, reference)

    def form(self, at: str, schema: Any) -> tuple[str, Any]:
        """Return what *schema* refers to, if it does nothing else, and where it is."""
        for _ in range(_MAX_STEPS):
            if not isinstance(schema, dict) or schema.keys() != {"$ref"}:
                break
            at = schema["$ref"]
            schema = self.referred(at)
        return at, schema

    def fits(self, at: str, schema: Any, keywords: Sequence[str], value: Any) -> bool:
        """Return whether *value* is valid by these *keywords* of *schema*.

        *at* is where the schema stands.
        """
        return bool(self._check(at, schema, keywords).is_valid(value))

    def valid(self, at: str, value: Any) -> bool:
        """Return whether *value* is valid by the schema that stands at *at*."""
        if at not in self._whole:
            self._whole[at] = self._compiled({"$ref": _ROOT + at})
        return bool(self._whole[at].is_valid(value))

    def flat(self, at: str, schema: Any, value: Any) -> Iterator[str]:
        """Yield what is wrong with *value* itself, whatever it holds."""
        if self.fits(at, schema, _FLAT, value):
            return
        for fault in self._check(at, schema, _FLAT).iter_errors(value):
            yield fault.message.replace(_VALUE, _shown(value))
            if fault.kind.name == "type":
                return

    def _check(self, at: str, schema: Any, keywords: Sequence[str]) -> Any:
        found = self._checks.get((at, keywords))
        if found is None:
            asked = {k: _by_pointer(at, k, schema[k]) for k in keywords if k in schema}
            found = self._checks[at, keywords] = self._compiled(asked)
        return found

    def _compiled(self, schema: dict[str, Any]) -> Any:
        return jsonschema_rs.Draft202012Validator(
            schema, registry=self._registry, pattern_options=OPTIONS, mask=_VALUE
        )


class _Walk:
    """One walk over schema and document."""

    def __init__(self, misfits: Misfits) -> None:
        self._misfits = misfits
        # What is being looked at, so that no circle of references is followed.
        self._open: set[tuple[str, tuple[str | int, ...]]] = set()

    def node(
        self, at: str, schema: Any, value: Any, path: tuple[str | int, ...]
    ) -> Iterator[str]:
        """Yield what is wrong with *value*, at *path*, by *schema*, at *at*."""
        if schema is False:
            yield _told(path, "may not be there")
        place = (at, path)
        if not isinstance(schema, dict) or place in self._open:
            return
        if len(self._open) >= _MAX_STEPS:
            yield _told(path, "does not fit the schema")
            return
        self._open.add(place)
        none = True
        for fault in self._keywords(at, schema, value, path):
            none = False
            yield fault
        if none:
            yield from self._wholes(at, schema, value, path)
        self._open.remove(place)

    def _keywords(
        self, at: str, schema: Any, value: Any, path: tuple[str | int, ...]
    ) -> Iterator[str]:
        for fault in self._misfits.flat(at, schema, value):
            yield _told(path, fault)
        if "$ref" in schema:
            to = schema["$ref"]
            yield from self.node(to, self._misfits.referred(to), value, path)
        for place, part in enumerate(schema.get("allOf", ())):
            yield from self.node(f"{at}/allOf/{place}", part, value, path)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                yield from self._choice(at, schema, keyword, value, path)
        if isinstance(value, dict):
            yield from self._object(at, schema, value, path)
        elif isinstance(value, list):
            yield from self._array(at, schema, value, path)

    def _object(
        self, at: str, schema: Any, value: Any, path: tuple[str | int, ...]
    ) -> Iterator[str]:
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        if "patternProperties" in schema:
            rest = True
        for key, held in value.items():
            if key in known:
                to = f"{at}/properties/{_escaped(key)}"
                yield from self.node(to, known[key], held, (*path, key))
            elif rest is False:
                yield _told((*path, key), "may not be there")
            elif rest is not True:
                yield from self._rest(
                    f"{at}/additionalProperties", rest, held, (*path, key)
                )

    def _array(
        self, at: str, schema: Any, value: Any, path: tuple[str | int, ...]
    ) -> Iterator[str]:
        first = schema.get("prefixItems", ())
        rest = schema.get("items", True)
        for index, held in enumerate(value):
            if index < len(first):
                to = f"{at}/prefixItems/{index}"
                yield from self.node(to, first[index], held, (*path, index))
            elif rest is not True:
                yield from self._rest(f"{at}/items", rest, held, (*path, index))

    def _rest(
        self, at: str, schema: Any, value: Any, path: tuple[str | int, ...]
    ) -> Iterator[str]:
        """Do as :meth:`node` does, where one schema is for many values."""
        if not self._misfits.valid(at, value):
            yield from self.node(at, schema, value, path)

    def _choice(
        self,
        at: str,
        schema: Any,
        keyword: str,
        value: Any,
        path: tuple[str | int, ...],
    ) -> Iterator[str]:
        """Yield what is wrong with *value* where it may have one of several forms."""
        if self._misfits.fits(at, schema, (keyword,), value):
            return
        forms = [
            self._misfits.form(f"{at}/{keyword}/{place}", part)
            for place, part in enumerate(schema[keyword])
        ]
        meant = [form for form in forms if self._meant(*form, value)]
        if len(meant) == 1:
            yield from self.node(*meant[0], value, path)
            return
        shown = _shown(value)
        kinds = [form.get("type") if isinstance(form, dict) else 0 for _, form in forms]
        if all(isinstance(kind, str) for kind in kinds) and not any(
            self._misfits.fits(*form, ("type",), value) for form in forms
        ):
            listed = ", ".join(f'"{kind}"' for kind in dict.fromkeys(kinds))
            yield _told(path, f"{shown} is not of types {listed}")
        else:
            many = "exactly one" if keyword == "oneOf" else "any"
            yield _told(path, f"{shown} does not fit {many} of the forms it may have")

    def _meant(self, at: str, schema: Any, value: Any) -> bool:
        """Return whether *value* looks like an attempt at this form."""
        if not isinstance(schema, dict):
            return schema is True
        if not self._misfits.fits(at, schema, ("type", "enum", "const"), value):
            return False
        named = schema.get("properties", {}) if isinstance(value, dict) else {}
        return all(
            self._misfits.fits(
                f"{at}/properties/{_escaped(key)}", part, ("const", "enum"), value[key]
            )
            for key, part in named.items()
            if key in value and isinstance(part, dict)
        )

    def _wholes(
        self, at: str, schema: Any, value: Any, path: tuple[str | int, ...]
    ) -> Iterator[str]:
        for keywords in _WHOLE:
            keyword = keywords[0]
            if keyword in schema and not self._misfits.fits(
                at, schema, keywords, value
            ):
                yield _told(path, f"does not fit {keyword!r} of the schema")
                return


def _shown(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), _MAX_VALUE)


def _told(path: Steps, fault: str) -> str:
    where = dotted(path)
    return shorten(f"{shorten(where, 100)}: {fault}" if where else fault, _MAX_TEXT)


def _escaped(key: str) -> str:
    """Return *key* as a step of a JSON pointer in a reference."""
    return quote(key.replace("~", "~0").replace("/", "~1"), safe="~")


def _by_pointer(at: str, keyword: str, part: Any) -> Any:
    """Return *part*, the value of *keyword*, with references for the schemas in it."""
    here = f"{_ROOT}{at}/{keyword}"
    if keyword in _ONE:
        return {"$ref": here}
    if keyword in _LISTED:
        return [{"$ref": f"{here}/{place}"} for place in range(len(part))]
    if keyword in _NAMED:
        return {name: {"$ref": f"{here}/{_escaped(name)}"} for name in part}
    return part
