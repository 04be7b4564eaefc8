"""How a document can break its schema, and what the client is told about it.

Used by ``validate``, which finds the violations.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple, TypeAlias

from edwin.errors import InvalidRequest, shorten

Steps: TypeAlias = Sequence[str | int]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# How patterns spell the end of the text; messages show the usual sign.
_END_OF_TEXT = r"(?![\s\S])"

_TYPE_OF = MappingProxyType(
    {
        str: "a string",
        int: "an integer",
        float: "a decimal",
        bool: "a boolean",
        list: "an array",
        dict: "an object",
        NoneType: "null",
    }
)
_VALUE = (
    "invalid_value",
    "Invalid value: {value}. Supported values are: {limit}.",
)
# For each keyword of the schemas the code and the message of its violation; of two
# violations in one place the earlier in this table is told.
_ANSWERS = MappingProxyType(
    {
        "required": (
            "missing_required_parameter",
            "Missing required parameter: '{where}'.",
        ),
        "additionalProperties": (
            "unknown_parameter",
            "Unknown parameter: '{where}'.",
        ),
        "type": (
            "invalid_type",
            "Invalid type{of}: expected {limit}, but got {type} instead.",
        ),
        "enum": _VALUE,
        "const": _VALUE,
        "minimum": (
            "{number}_below_min_value",
            "Invalid '{where}': {number} below minimum value. "
            "Expected a value >= {limit}, but got {value} instead.",
        ),
        "maximum": (
            "{number}_above_max_value",
            "Invalid '{where}': {number} above maximum value. "
            "Expected a value <= {limit}, but got {value} instead.",
        ),
        "minLength": (
            "empty_string",
            "Invalid '{where}': empty string. Expected a string with minimum "
            "length {limit}, but got an empty string instead.",
        ),
        "maxLength": (
            "string_above_max_length",
            "Invalid '{where}': string too long. Expected a string with maximum "
            "length {limit}, but got a string with length {size} instead.",
        ),
        "minItems": (
            "empty_array",
            "Invalid '{where}': empty array. Expected an array with minimum "
            "length {limit}, but got an empty array instead.",
        ),
        "maxItems": (
            "array_above_max_length",
            "Invalid '{where}': array too long. Expected an array with maximum "
            "length {limit}, but got an array with length {size} instead.",
        ),
        "minProperties": (
            "object_below_min_properties",
            "Invalid '{where}': too few properties. "
            "Expected at least {limit}, but got {size} instead.",
        ),
        "maxProperties": (
            "object_above_max_properties",
            "Invalid '{where}': too many properties. "
            "Expected at most {limit}, but got {size} instead.",
        ),
        "propertyNames": (
            "string_above_max_length",
            "Invalid '{where}': property name too long. "
            "Expected names with maximum length {limit}.",
        ),
        "pattern": (
            "invalid_value",
            "Invalid '{where}': string does not match pattern. "
            "Expected a string that matches the pattern '{limit}'.",
        ),
    }
)

_RANK = MappingProxyType({keyword: rank for rank, keyword in enumerate(_ANSWERS)})


class Violation(NamedTuple):
    """One way in which a document breaks its schema.

    Attributes:
        path: Where in the document; of the object, if a key is missing or unknown.
        keyword: The schema's keyword that is broken.
        limit: The keyword's value; of ``type``, the expected types in words.
        key: The missing or unknown key, or None.
        number: ``decimal`` where the schema wants any number, else ``integer``.

    """

    path: tuple[str | int, ...]
    keyword: str
    limit: Any
    key: str | None = None
    number: str = "integer"


def place(found: Violation, document: Any) -> list[float]:
    """Return what *found* is sorted by: a position for each level, then the kind."""
    positions: list[float] = []
    node = document
    for step in found.path:
        positions.append(step if isinstance(step, int) else list(node).index(step))
        node = node[step]
    if found.key is None:
        return [*positions, -1, _RANK.get(found.keyword, len(_RANK))]
    if found.keyword == "required":
        ranked = found.key in found.limit
        return [*positions, math.inf, found.limit.index(found.key) if ranked else -1]
    return [*positions, list(node).index(found.key), -1]


def refusal(found: Violation, document: Any) -> InvalidRequest:
    """Return the error that tells the client of *found*.

    Its message is made from the violation alone and repeats no long value.
    """
    keyword, limit = found.keyword, found.limit
    where = dotted(found.path if found.key is None else (*found.path, found.key))
    value = walk(document, found.path)
    if keyword == "enum":
        limit = _listed([_shown(option) for option in limit if option is not None])
    elif keyword == "const":
        limit = _shown(limit)
    elif keyword == "pattern":
        limit = limit.replace(_END_OF_TEXT, "$")
    code, message = _ANSWERS.get(keyword, ("invalid_value", "Invalid value{of}."))
    words = {
        "where": where,
        "of": f" for '{where}'" if where else "",
        "limit": limit,
        "value": _shown(value),
        "type": _TYPE_OF[type(value)],
        "size": len(value) if isinstance(value, str | list | dict) else None,
        "number": found.number,
    }
    return InvalidRequest(
        message.format_map(words), param=where or None, code=code.format_map(words)
    )


def dotted(path: Steps) -> str:
    """Return *path* as clients read it: ``messages[0].content``.

    A key that is no plain word stands shortened in brackets: ``metadata["a b"]``.
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(shorten(step, 40))}]"
    return text


def _listed(texts: Sequence[str]) -> str:
    if len(texts) <= 2:
        return " and ".join(texts)
    return f"{', '.join(texts[:-1])}, and {texts[-1]}"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(shorten(value))
    return (
        json.dumps(value) if isinstance(value, int | float) else _TYPE_OF[type(value)]
    )


def walk(document: Any, steps: Steps) -> Any:
    """Return what *steps* lead to in *document*."""
    for step in steps:
        document = document[step]
    return document
