"""What of a JSON Schema Anthropic's structured outputs take; pure.

Used by ``anthropic_request``.  The API takes part of JSON Schema, and refuses a call
whose schema has more; an answer is checked against the whole schema all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TYPES = frozenset(
    {"object", "array", "string", "integer", "number", "boolean", "null"}
)
_FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname", "uri"),
        *("ipv4", "ipv6", "uuid"),
    }
)
# What is only said of a schema, or limits a value without changing its structure.
_LEFT_OUT = frozenset(
    {
        *("$schema", "$id", "$comment", "examples", "deprecated", "readOnly"),
        *("writeOnly", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems"),
        *("uniqueItems", "minProperties", "maxProperties", "contentEncoding"),
        "contentMediaType",
    }
)
_LIMITS = _LEFT_OUT - {"$schema", "$id", "$comment", "examples", "deprecated"}
_AS_THEY_ARE = frozenset({"title", "description", "default", "required"})
_NAMED = frozenset({"properties", "$defs", "definitions"})
_MAX_DEPTH = 64


class Unsayable(Exception):
    """The schema has what structured outputs do not know."""


def taken(schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return what of *schema* the API takes, and whether that is all it asks.

    Limits of lengths and numbers are left out.

    Raises:
        Unsayable: If the rest would be another schema: one with open objects, with
            references that lead in a circle, or with words that the API does not know.

    """
    limited = False

    def kept(part: Any, depth: int) -> dict[str, Any]:
        nonlocal limited
        if not isinstance(part, dict) or depth > _MAX_DEPTH:
            raise Unsayable
        if _is_object(part) and part.get("additionalProperties") is not False:
            raise Unsayable
        result: dict[str, Any] = {}
        for name, value in part.items():
            if name in _LEFT_OUT or (name == "format" and value not in _FORMATS):
                limited = limited or name in _LIMITS or name == "format"
            elif name == "items":
                result[name] = kept(value, depth + 1)
            elif name == "anyOf":
                result[name] = [kept(inner, depth + 1) for inner in value]
            elif name in _NAMED:
                result[name] = {k: kept(v, depth + 1) for k, v in value.items()}
            elif name in _AS_THEY_ARE or _is_plain(name, value):
                result[name] = value
            else:
                raise Unsayable
        return result

    result = kept(schema, 0)
    _check_references(schema)
    return result, not limited


def _is_object(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return "object" in kinds or "properties" in part


def _is_plain(name: str, value: Any) -> bool:
    if name == "type":
        return all(kind in _TYPES for kind in ([value] if _text(value) else value))
    if name == "enum":
        return not any(isinstance(item, dict | list) for item in value)
    if name == "const":
        return not isinstance(value, dict | list)
    if name == "additionalProperties":
        return value is False
    return name in ("format", "$ref") and _text(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _check_references(schema: Mapping[str, Any]) -> None:
    """Raise ``Unsayable`` where a reference leads nowhere, or in a circle."""
    seen: dict[str, bool] = {}

    def follow(reference: str) -> None:
        if seen.get(reference) is False or len(seen) > 10 * _MAX_DEPTH:
            raise Unsayable
        if reference in seen:
            return
        seen[reference] = False
        for inner in _references(_target(schema, reference)):
            follow(inner)
        seen[reference] = True

    for reference in _references(schema):
        follow(reference)


def _target(schema: Mapping[str, Any], reference: str) -> Any:
    kind, _, name = reference.removeprefix("#/").partition("/")
    named = schema.get(kind) if kind in ("$defs", "definitions") else None
    if not isinstance(named, dict) or name not in named:
        raise Unsayable
    return named[name]


def _references(part: Any) -> Iterator[str]:
    """Yield the references in *part*, those in its definitions too."""
    if isinstance(part, dict):
        if _text(part.get("$ref")):
            yield part["$ref"]
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)
