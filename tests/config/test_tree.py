"""Trees: made of dictionaries, merged, and their problems put into words."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edwin.config.tree import (
    Place,
    Problem,
    dotted,
    fault,
    from_python,
    merge,
    plain,
    put,
    resolve,
)
from edwin.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {1: 2}}, "x: a: key 1 is not text; use a str"),
        ({"a": math.nan}, "x: a: is nan; use a finite number"),
        ({"a": [math.inf]}, "x: a[0]: is inf; use a finite number"),
        ({"a": b"b"}, "x: a: is of type bytes; use text, a number, a bool or None"),
        ({"a": {1}}, "x: a: is of type set; use text, a number, a bool or None"),
        ({"a": 10**5000}, "x: a: is too large; use fewer digits"),
        ({"a": "\ud800"}, "x: a: is not Unicode; remove lone surrogates"),
    ],
)
def test_config_refuses_values_that_no_file_holds(value, text):
    """A dictionary may hold what a file may hold, and nothing else."""
    with pytest.raises(ConfigError) as caught:
        from_python(value, "x", 0)
    assert caught.value.message == text


def test_config_refuses_endless_values():
    """A dictionary that holds itself is refused."""
    value: dict[str, object] = {}
    value["a"] = value
    with pytest.raises(ConfigError, match=r"nested too deep"):
        from_python(value, "x", 0)


def test_config_takes_paths_and_tuples():
    """Paths are text, tuples are lists."""
    tree = from_python({"a": Path("/b"), "c": (1, 2.5, None, True)}, "x", 0)
    assert plain(tree) == {"a": "/b", "c": [1, 2.5, None, True]}


def test_config_layers_merge_maps_and_replace_the_rest():
    """Maps merge, lists and single values replace."""
    base = from_python({"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}, "x", 0)
    over = from_python({"a": {"c": [3], "g": 2}, "d": {"h": 1}, "e": 5}, "y", 1)
    assert plain(merge(base, over)) == {
        "a": {"b": 1, "c": [3], "g": 2},
        "d": {"h": 1},
        "e": 5,
    }
    assert plain(base) == {"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}


def test_config_puts_single_values():
    """An option is put at its key, unless a single value is in the way."""
    tree = from_python({"a": {"b": 1}, "c": 5}, "x", 0)
    node = from_python(7, "options", 1)
    assert plain(put(tree, ["a", "d", "e"], node)) == {
        "a": {"b": 1, "d": {"e": 7}},
        "c": 5,
    }
    assert plain(put(tree, ["c", "d"], node)) == plain(tree)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("a", "b-c", "d_e"), "a.b-c.d_e"),
        (("agents", "list", 0, "id"), "agents.list[0].id"),
        (("a b", "c.d", ""), "'a b'.'c.d'.''"),
        (("x" * 99,), "x" * 99),
    ],
)
def test_config_paths_are_written_as_in_the_docs(path, text):
    """A path reads as the documentation writes keys."""
    assert dotted(path) == text


def test_config_reports_all_problems_in_order():
    """Every problem has a line, in the document's order; beyond 20 they are counted."""
    problems = [
        Problem(Place("x.yaml", line, (0, line)), ("k",), f"wrong {line}; right")
        for line in reversed(range(1, 24))
    ]
    lines = fault([*problems, problems[0]]).message.split("\n")
    assert lines[:2] == ["x.yaml:1: k: wrong 1; right", "x.yaml:2: k: wrong 2; right"]
    assert lines[20:] == ["x.yaml: and 3 more"]


@pytest.mark.parametrize(
    "text", ["-", "1e", "--1", "1.5.2", "1,5", " 1", "1\n", "1e1000"]
)
def test_config_numbers_are_those_of_json(text):
    """What is not a number of JSON, or not finite, is text."""
    assert resolve(text) == text
