"""Environment variables in values: what they become, and what goes without them."""

from __future__ import annotations

import pytest

from edwin.config.tree import Problem, from_python, plain
from edwin.config.variables import substitute

ENVIRON = {"HOST": "example.org", "EMPTY": "", "EVIL": "${HOST}\nport: 1", "N": "8080"}


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("${HOST}", "example.org"),
        ("https://${HOST}:${N}/v1", "https://example.org:8080/v1"),
        ("${NONE:-here}", "here"),
        ("${EMPTY:-here}", "here"),
        ("${HOST:-here}", "example.org"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b c}", "a:-b c"),
        ("$${HOST}", "${HOST}"),
        ("$${HOST} ${HOST}", "${HOST} example.org"),
        ("$HOST $ $$", "$HOST $ $$"),
        ("${EVIL}", "${HOST}\nport: 1"),
        ("${N}", "8080"),
    ],
)
def test_config_fills_in_variables(value, filled):
    """What a variable holds is text, read neither as YAML nor for variables."""
    problems: list[Problem] = []
    tree = from_python({"key": [value]}, "x", 0)
    result = substitute(tree, ENVIRON, {}, problems)
    assert result is not None
    assert plain(result) == {"key": [filled]}
    assert problems == []


def test_config_unset_variables_take_their_keys_away():
    """Unset or empty without a default: as if key or item were not there."""
    unset: dict[tuple[str | int, ...], str] = {}
    tree = from_python(
        {
            "a": "${NONE}",
            "b": {"c": "${EMPTY}", "d": "x${NONE}${OTHER}", "e": 1},
            "f": ["${NONE}", "g", "${HOST}"],
            "${NONE}": "keys are left alone",
        },
        "x",
        0,
    )
    result = substitute(tree, ENVIRON, unset, [])
    assert result is not None
    assert plain(result) == {
        "b": {"e": 1},
        "f": ["g", "example.org"],
        "${NONE}": "keys are left alone",
    }
    assert unset[("a",)] == "NONE"
    assert unset[("b", "c")] == "EMPTY"
    assert unset[("b", "d")] == "NONE"


@pytest.mark.parametrize("value", ["${", "a ${1X} b", "${A-b}", "${}", "${HOST"])
def test_config_refuses_half_variables(value):
    """'${' that begins no variable is an error that says how to write it."""
    problems: list[Problem] = []
    substitute(from_python({"a": value}, "x", 0), ENVIRON, {}, problems)
    assert [str(problem) for problem in problems] == [
        "x: a: '${' begins no variable; write ${NAME}, ${NAME:-default} or $${"
    ]


def test_config_refuses_variables_that_are_not_text():
    """Bytes of the environment that are not UTF-8 are named, not passed on."""
    problems: list[Problem] = []
    tree = from_python({"a": "${X}"}, "x", 0)
    substitute(tree, {"X": "\udcff"}, {}, problems)
    assert str(problems[0]) == "x: a: variable X is not valid UTF-8; correct it"
