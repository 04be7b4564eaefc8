"""A configuration as a tree whose every node knows where it was written.

``file`` makes such trees from YAML, :func:`from_python` from dictionaries;
``layers`` lays one over another, ``check`` and ``rules`` find fault with them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from edwin.errors import ConfigError, shorten

Scalar: TypeAlias = str | int | float | bool | None
Path: TypeAlias = tuple[str | int, ...]

MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_PROBLEMS = 20

NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,99})(\.[0-9]{1,99})?([eE][-+]?[0-9]{1,3})?")
WORDS: Mapping[str, Scalar] = MappingProxyType(
    {
        "": None,
        "~": None,
        "null": None,
        "true": True,
        "false": False,
    }
)
COMMENT = re.compile(r"(^|\s)(//|/\*)")
ADVICE = "a blank belongs after ':', and comments start with '#'"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written.

    Attributes:
        source: What stands before the message: a file's name, or a layer's.
        line: From 1; 0 where the source has no lines.
        order: Sorts places as a reader meets them.

    """

    source: str
    line: int = 0
    order: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place: that of its key in a map, its own in a list.

    Attributes:
        shown: What messages show in place of the value, where it was substituted.

    """

    value: dict[str, Node] | list[Node] | Scalar
    place: Place
    shown: str | None = None


class Problem(NamedTuple):
    """Something wrong at a place: what it is, and what would be right."""

    place: Place
    path: Path
    text: str

    def __str__(self) -> str:
        path = f"{dotted(self.path)}: " if self.path else ""
        return f"{self.place}: {path}{self.text}"


def fault(problems: Iterable[Problem]) -> ConfigError:
    """Return one error for all *problems*, a line each, as a reader meets them."""
    found = sorted(problems, key=lambda problem: problem.place.order)
    lines = list(dict.fromkeys(map(str, found)))
    if len(lines) > MAX_PROBLEMS:
        rest = len(lines) - MAX_PROBLEMS
        lines[MAX_PROBLEMS:] = [f"{found[0].place.source}: and {rest} more"]
    return ConfigError("\n".join(lines))


def dotted(path: Path) -> str:
    """Return *path* as the documentation writes it, ``agents.list[0].id``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            known = re.fullmatch(r"[\w-]+|\*", part)
            text += f".{part if known else repr(shorten(part, 40))}"
    return text.lstrip(".")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of *known* that *word* may be a slip of the pen for, or None."""
    import difflib

    close = difflib.get_close_matches(word, list(known), 1)
    return close[0] if close else None


def resolve(text: str) -> Scalar:
    """Return what the unquoted *text* stands for.

    ``true``, ``false``, ``null``, ``~`` and nothing are words, numbers are written as
    in JSON; all else (``0123``, ``off``, ``2026-01-01``, ``1_000``) is text.
    """
    if text in WORDS:
        return WORDS[text]
    match = NUMBER.fullmatch(text)
    if not match:
        return text
    if match[2] is None and match[3] is None:
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else text


def from_python(value: Any, source: str, rank: int) -> Node:
    """Return the tree of a Python value: maps, lists, paths and JSON's scalars.

    Raises:
        ConfigError: If it holds anything else, or is nested without end.

    """
    count = 0

    def build(value: Any, path: Path) -> Node:
        nonlocal count
        count += 1
        place = Place(source, 0, (rank, count))
        if len(path) > MAX_DEPTH or count > MAX_NODES:
            raise fault([Problem(place, path[:4], "nested too deep; write it flatter")])
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, Mapping):
            for key in value:
                if type(key) is not str or not is_unicode(key):
                    text = f"key {key!r} is not text; use a str"
                    raise fault([Problem(place, path, text)])
            return Node({k: build(v, (*path, k)) for k, v in value.items()}, place)
        if isinstance(value, list | tuple):
            return Node([build(v, (*path, i)) for i, v in enumerate(value)], place)
        if flaw := _flaw(value):
            raise fault([Problem(place, path, flaw)])
        return Node(value, place)

    return build(value, ())


def _flaw(value: Any) -> str | None:
    """Say why *value* cannot be a scalar of a configuration, or None."""
    if value is None or type(value) is bool:
        return None
    if type(value) is str:
        return None if is_unicode(value) else "is not Unicode; remove lone surrogates"
    if type(value) is float:
        return None if math.isfinite(value) else f"is {value}; use a finite number"
    if type(value) is int:
        return None if value.bit_length() < 400 else "is too large; use fewer digits"
    return f"is of type {type(value).__name__}; use text, a number, a bool or None"


def is_unicode(text: str) -> bool:
    """Say whether *text* can be encoded: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(node: Node) -> Any:
    """Return the tree as dictionaries, lists and scalars, all of them new."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def find(node: Node, path: Path) -> Node | None:
    """Return the node at *path* below *node*, or None."""
    for part in path:
        child: Node | None = None
        if isinstance(node.value, dict):
            child = node.value.get(str(part))
        elif isinstance(node.value, list) and isinstance(part, int):
            child = node.value[part] if part < len(node.value) else None
        if child is None:
            return None
        node = child
    return node


def merge(base: Node, over: Node) -> Node:
    """Return *over* laid on *base*: maps merge, everything else replaces."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return replace(over, value=merged)


def put(node: Node, path: Sequence[str], child: Node) -> Node:
    """Return the tree with *child* at *path*; unchanged if a scalar is in the way."""
    if not path:
        return child
    if not isinstance(node.value, dict):
        return node
    below = node.value.get(path[0], Node({}, child.place))
    return replace(node, value=node.value | {path[0]: put(below, path[1:], child)})
