"""A call's arguments against the tool's JSON Schema, in words for the model."""

from __future__ import annotations

import http.server
import threading
from typing import Any

import pytest

from edwin.tools.arguments import checker

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "days": {"anyOf": [{"$ref": "#/$defs/days"}, {"type": "null"}]},
        "unit": {"enum": ["c", "f"]},
        "list": {"type": "array", "items": {"type": "integer"}},
        "way": {
            "anyOf": [
                {"type": "object", "properties": {"to": {"type": "string"}}},
                {"type": "null"},
            ]
        },
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"days": {"type": "integer", "minimum": 1}},
}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"city": "Rome", "days": None, "list": [1, 2]}, None),
        ({}, '"city" is a required property'),
        ({"city": 3}, 'city: 3 is not of type "string"'),
        ({"city": "Rome", "unit": "k"}, 'unit: "k" is not one of "c" or "f"'),
        ({"city": "Rome", "list": [1, "é"]}, 'list[1]: "é" is not of type "integer"'),
        (
            {"city": "Rome", "days": 0},
            "days: 0 does not fit: it is less than the minimum of 1, and "
            'it is not of type "null"',
        ),
        (
            {"city": "Rome", "way": {"to": 1}},
            'way: {"to": 1} does not fit: to is not of type "string", and '
            'it is not of type "null"',
        ),
        (
            {"city": "Rome", "town": 1},
            "Additional properties are not allowed ('town' was unexpected)",
        ),
        (
            {"city": 3, "unit": "k"},
            'city: 3 is not of type "string"; unit: "k" is not one of "c" or "f"',
        ),
    ],
)
def test_arguments_faults(arguments, words):
    """The model is told the place, the value and what is wrong with it."""
    assert checker(SCHEMA)(arguments) == words


def test_arguments_cut():
    """Long values are cut, and of many faults three are told."""
    check = checker(SCHEMA)
    words = check({"city": ["x" * 10_000]})
    assert words is not None
    assert words.startswith('city: ["xxx')
    assert len(words) < 100
    words = check({"city": "Rome", "list": ["a"] * 100})
    assert words is not None
    assert words.count("is not of type") == 3
    assert words.endswith('list[2]: "a" is not of type "integer"')


def test_arguments_many():
    """Arguments with thousands of faults take no time: one fault is told."""
    words = checker(SCHEMA)({"city": "Rome", "list": ["a"] * 100_000})
    assert words == 'list[0]: "a" is not of type "integer"'


def test_arguments_deep():
    """Arguments that are nested too deeply are a fault like others."""
    document: Any = {}
    for _ in range(5000):
        document = {"a": document}
    words = checker(SCHEMA | {"additionalProperties": {"$ref": "#"}})(document)
    assert words == "the arguments cannot be read: Recursion limit reached"


def test_arguments_drafts():
    """A schema is read by the draft that it names."""
    items = {"type": "array", "items": [{"type": "integer"}]}
    schema = {"type": "object", "properties": {"a": items}}
    old = {"$schema": "http://json-schema.org/draft-07/schema#"}
    check = checker(schema | old)
    assert check({"a": ["x"]}) == 'a[0]: "x" is not of type "integer"'
    with pytest.raises(ValueError, match="is not of types"):
        checker(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": {"a": {"pattern": "("}}},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "urn:nobody"},
        {"default": object()},
    ],
)
def test_arguments_refuses(schema):
    """A schema that cannot be used is told at once, in one line."""
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        checker(schema)


def test_arguments_fetches_nothing():
    """A schema that refers to another document is refused; nobody is asked for it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/schema"
            for schema in ({"$ref": url}, {"$schema": url}, {"$id": url, "$ref": "a"}):
                with pytest.raises(ValueError):
                    checker(schema)
        finally:
            server.shutdown()
            thread.join()
    assert asked == []
