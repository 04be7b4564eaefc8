"""Checks documents against the shipped schemas; names the first fault and its place.

Called for every request body and every WebSocket frame.  A file, by hand::

    python -m edwin.validate openai/chat_completion_request request.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema_rs
import orjson
from jsonschema_rs import ValidationErrorKind as Kind

from edwin import resources
from edwin.errors import InvalidRequest, shorten
from edwin.violations import Steps, Violation, dotted, place, refusal, walk

# Half of what orjson.dumps can write: what was read fits into a larger document.
MAX_DEPTH = 128
# The validator spends 15 µs on every error, whether it is looked at or not.
MAX_LISTED = 1000

_SCHEME = "edwin:"
_TYPES = MappingProxyType(
    {
        "string": "a string",
        "integer": "an integer",
        "number": "a decimal",
        "boolean": "a boolean",
        "array": "an array",
        "object": "an object",
        "null": "null",
    }
)


def parse_json(body: bytes, *, what: str = "the request body") -> Any:
    """Return the document that *body* holds.

    Of duplicate keys the last one counts.  Integers beyond 64 bits become floats.

    Args:
        body: JSON in UTF-8, without byte order mark.
        what: What *body* is, for the message.

    Raises:
        InvalidRequest: If it is not JSON, if a number is NaN, infinite or beyond what
            a float holds, if a string holds half a surrogate pair, or if it is nested
            deeper than ``MAX_DEPTH`` levels.

    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        fault = f"{error.msg}, line {error.lineno}, column {error.colno}"
    else:
        # No document is deeper than it has opening brackets, and most have few.
        brackets = body.count(b"{") + body.count(b"[")
        if brackets <= MAX_DEPTH or not _deeper(document, MAX_DEPTH):
            return document
        fault = f"more than {MAX_DEPTH} levels of nesting"
    raise InvalidRequest(
        f"We could not parse the JSON body of your request. In {what}: {fault}."
    )


def names() -> list[str]:
    """Return the names of the shipped schemas, sorted."""
    return sorted(
        f"{room.name}/{file.name.removesuffix('.json')}"
        for room in resources.folder("schemas").iterdir()
        if room.is_dir()
        for file in room.iterdir()
        if file.name.endswith(".json")
    )


def retrieve(uri: str) -> Any:
    """Return the shipped schema with the ``$id`` *uri*, as ``edwin:openai/error``.

    Every ``$ref`` is resolved by this, so that nothing is ever fetched.

    Raises:
        LookupError: If no shipped schema has it.

    """
    name = uri.removeprefix(_SCHEME)
    if not uri.startswith(_SCHEME) or name not in names():
        raise LookupError(f"{shorten(uri)!r} is not one of Edwin's schemas")
    return orjson.loads(resources.read("schemas", f"{name}.json"))


class Schemas:
    """The shipped schemas; each is compiled when it is first needed, and then kept."""

    def __init__(self) -> None:
        self._documents: dict[str, Any] = {}
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def check(self, name: str, document: Any) -> None:
        """Raise unless *document* is valid.

        Of several violations the first one is reported: a value's own come before
        those of what it holds, these in the document's order, and missing keys last,
        in the schema's order.  A document of more than ``MAX_LISTED`` values may have
        another one reported.

        Args:
            name: The schema, ``openai/chat_completion_request``.
            document: What ``parse_json`` returned.

        Raises:
            InvalidRequest: With the path of the fault as ``param`` and a code for its
                kind; the message repeats no long value.
            LookupError: If there is no such schema.

        """
        validator = self._validators.get(name) or self._compile(name)
        if validator.is_valid(document):
            return
        if not _larger(document, MAX_LISTED):
            raise refusal(self.errors(name, document)[0], document)
        try:
            validator.validate(document)
        except jsonschema_rs.ValidationError as error:
            raise refusal(self._violation(name, error, document), document) from None

    def errors(self, name: str, document: Any) -> list[Violation]:
        """Return all violations of *document* in the order that ``check`` goes by.

        Takes 15 µs for each of them, however many there are.
        """
        validator = self._validators.get(name) or self._compile(name)
        found = [
            self._violation(name, error, document)
            for error in validator.iter_errors(document)
        ]
        return sorted(found, key=lambda violation: place(violation, document))

    def warm(self, *names: str) -> None:
        """Compile the schemas *names* now, so that no request has to wait for it."""
        for name in names:
            self._compile(name)

    def _compile(self, name: str) -> jsonschema_rs.Validator:
        schema = self._document(name)
        validator = jsonschema_rs.Draft202012Validator(schema, retriever=retrieve)
        self._validators[name] = validator
        return validator

    def _document(self, name: str) -> Any:
        if name not in self._documents:
            self._documents[name] = retrieve(_SCHEME + name)
        return self._documents[name]

    def _violation(
        self, name: str, error: jsonschema_rs.ValidationError, document: Any
    ) -> Violation:
        path, kind = _located(error, document), error.kind
        *steps, keyword = error.evaluation_path
        schema = self._part(name, steps)
        if isinstance(kind, Kind.Required):
            return Violation(path, kind.name, schema.get("required", ()), kind.property)
        if isinstance(kind, Kind.AdditionalProperties):
            unknown = frozenset(kind.unexpected)
            first = next(key for key in walk(document, path) if key in unknown)
            return Violation(path, kind.name, None, first)
        if isinstance(kind, Kind.Type):
            return Violation(path, kind.name, self._expected(name, steps))
        number = "decimal" if "number" in schema.get("type", ()) else "integer"
        return Violation(path, kind.name, schema.get(keyword), number=number)

    def _part(self, name: str, steps: Steps) -> Any:
        """Return the part of schema *name* that is reached by *steps*."""
        root = node = self._document(name)
        for step in steps:
            if step == "$ref":
                target, _, pointer = node["$ref"].partition("#")
                root = self._document(target.removeprefix(_SCHEME)) if target else root
                node = walk(root, pointer.split("/")[1:])
            else:
                node = node[step]
        return node

    def _expected(self, name: str, steps: Steps) -> str:
        """Return the types of the schema at *steps* in words."""
        types = self._part(name, steps)["type"]
        types = [types] if isinstance(types, str) else types
        words = [
            _TYPES[kind] + (self._of(name, steps) if kind == "array" else "")
            for kind in types
            if kind != "null" or len(types) == 1
        ]
        if len(words) == 1:
            return words[0]
        bare = [word.split(" ", 1)[1] for word in words[1:]]
        return f"one of {' or '.join([words[0], *bare])}"

    def _of(self, name: str, steps: Steps) -> str:
        if "items" not in self._part(name, steps):
            return ""
        steps = [*steps, "items"]
        while "$ref" in (items := self._part(name, steps)):
            steps = [*steps, "$ref"]
        return f" of {items['type']}s"


def _located(error: jsonschema_rs.ValidationError, document: Any) -> tuple[Any, ...]:
    """Return where in *document* the *error* is.

    The validator leaves empty keys out of its path and turns keys such as ``05`` into
    numbers.  Only keys that clients choose can be like that; the others are taken from
    the schema's path.
    """
    told = iter(error.instance_path)
    steps = iter(error.evaluation_path[:-1])
    path: list[str | int] = []
    for step in steps:
        if step == "properties":
            path.append(str(next(steps)))
            next(told)
        elif step == "items":
            path.append(next(told))
        elif step == "additionalProperties":
            key = next(told, "")
            if isinstance(key, int):
                key = _spelled(key, walk(document, path), error.instance)
            path.append(key)
    return tuple(path)


def _spelled(number: int, holder: dict[str, Any], value: Any) -> str:
    """Return the key of *holder* that reads as *number* and has *value*."""
    usual = str(number)
    if holder.get(usual) == value:
        return usual
    return next(
        key
        for key, held in holder.items()
        if key and (key.removeprefix("+").lstrip("0") or "0") == usual and held == value
    )


def _containers(nodes: Iterable[Any]) -> list[Any]:
    """Return the objects and arrays right inside of *nodes*, which are such."""
    return [
        child
        for node in nodes
        for child in (node.values() if type(node) is dict else node)
        if type(child) is dict or type(child) is list
    ]


def _deeper(document: Any, levels: int) -> bool:
    row = _containers([[document]])
    for _ in range(levels):
        row = _containers(row)
        if not row:
            return False
    return True


def _larger(document: Any, values: int) -> bool:
    rest = _containers([[document]])
    while rest:
        node = rest.pop()
        values -= len(node)
        if values < 0:
            return True
        rest += _containers([node])
    return False


def oracle(schema: Any) -> Any:
    """Return ``jsonschema``'s validator of *schema*: slow, and independent.

    Args:
        schema: The name of a shipped one, or any other as a document, which may refer
            to those that are shipped.

    Raises:
        InvalidRequest: If the document is no schema.

    """
    from jsonschema import (  # type: ignore[import-untyped, unused-ignore]
        Draft202012Validator,
        SchemaError,
    )
    from referencing import Registry, Resource

    shipped = [(uri, retrieve(uri)) for uri in (_SCHEME + name for name in names())]
    registry = Registry().with_resources(
        (uri, Resource.from_contents(schema)) for uri, schema in shipped
    )
    if isinstance(schema, str):
        schema = retrieve(_SCHEME + schema)
    else:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            where = dotted(tuple(error.absolute_path)) or "(document)"
            raise InvalidRequest(
                f"it is no schema: {where}: {shorten(error.message, 200)}"
            ) from None
    return Draft202012Validator(schema, registry=registry)


def _read(path: str) -> Any:
    """Return the document in the file *path*, or on standard input.

    Raises:
        InvalidRequest: If it cannot be read, or is not JSON.

    """
    try:
        body = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}") from None
    return parse_json(body, what=path)


def _validator(schema: str) -> Any:
    """Return a validator of the schema with that name, or in that file.

    Raises:
        InvalidRequest: If there is none, or it is no schema.

    """
    name = schema.removesuffix(".json")
    if name in names():
        return oracle(name)
    if not Path(schema).is_file():
        known = ", ".join(names())
        raise InvalidRequest(f"no schema {schema!r}; there are {known}, or a path")
    return oracle(_read(schema))


def main(arguments: Sequence[str]) -> int:
    """Print each violation of a file as ``path: what``.

    Returns:
        0 if the file is valid, 1 if it is not, 2 if it cannot be checked.

    """
    parser = argparse.ArgumentParser(prog="python -m edwin.validate")
    parser.add_argument(
        "schema", help="as openai/chat_completion_request, or the path of a schema"
    )
    parser.add_argument("file", help="path of a JSON file, or - for standard input")
    chosen = parser.parse_args(arguments)
    from referencing.exceptions import Unresolvable

    try:
        validator = _validator(chosen.schema)
        document = _read(chosen.file)
        faults = list(validator.iter_errors(document))
    except InvalidRequest as error:
        print(error.message, file=sys.stderr)
        return 2
    except Unresolvable as error:
        why = shorten(str(error), 200)
        print(f"{chosen.schema} refers to nothing: {why}", file=sys.stderr)
        return 2
    found = [
        (Violation(tuple(fault.absolute_path), fault.validator, None), fault.message)
        for fault in faults
    ]
    for fault, text in sorted(found, key=lambda pair: place(pair[0], document)):
        print(f"{dotted(fault.path) or '(document)'}: {shorten(text, 200)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
