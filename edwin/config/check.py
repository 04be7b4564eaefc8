"""Hold a configuration against ``schemas/config``, and say in words what is wrong.

``jsonschema-rs``, which requests need anyway, gives the verdict; ``jsonschema``, which
takes longer to import than a configuration to load, is asked only what the faults are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jsonschema_rs

from edwin import validate
from edwin.config.schema import ROOT, Shape, is_type
from edwin.config.tree import (
    ADVICE,
    COMMENT,
    Node,
    Path,
    Problem,
    dotted,
    find,
    nearest,
    plain,
    resolve,
)
from edwin.errors import shorten

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "boolean": "a bool",
        "number": "a number",
        "string": "text",
        "object": "a map",
        "array": "a list",
    }
)


class Fault(NamedTuple):
    """An error of the schemas: the keyword broken at *path*, and what it demands."""

    path: Path
    keyword: str
    demand: Any
    names: tuple[str, ...] = ()


def check(tree: Node, shape: Shape, unset: Mapping[Path, str]) -> list[Problem]:
    """Return what is wrong with *tree* by the schemas' word.

    Args:
        tree: The whole configuration, as ``schema.fit`` left it.
        shape: Of the whole configuration.
        unset: Keys that went away for want of a variable, with its name.

    """
    document = plain(tree)
    root, retriever = validate.retrieve(f"edwin:{ROOT}"), validate.retrieve
    verdict = jsonschema_rs.Draft202012Validator(root, retriever=retriever)
    if verdict.is_valid(document):
        return []
    problems: list[Problem] = []
    for fault in _faults(document):
        problems += _problems(fault, tree, shape, unset)
    return problems or [Problem(tree.place, (), "is not valid by schemas/config")]


def _faults(document: Any) -> Iterator[Fault]:
    for error in validate.oracle(ROOT).iter_errors(document):
        keyword, demand, value = error.validator, error.validator_value, error.instance
        names: list[str] = []
        if "propertyNames" in error.absolute_schema_path:
            keyword, names = "propertyNames", [value]
        elif keyword == "required":
            names = [name for name in demand if name not in value]
        elif keyword == "additionalProperties":
            names = [name for name in value if name not in error.schema["properties"]]
        yield Fault(tuple(error.absolute_path), str(keyword), demand, tuple(names))


def _problems(
    fault: Fault, tree: Node, shape: Shape, unset: Mapping[Path, str]
) -> Iterator[Problem]:
    node = find(tree, fault.path) or tree
    here = shape.at(fault.path) or shape
    if not fault.names:
        yield Problem(node.place, fault.path, _words(fault, node, here))
    for name in fault.names:
        path = (*fault.path, name)
        if fault.keyword == "required":
            text = _missing(here.child(name), unset.get(path))
        elif fault.keyword == "additionalProperties":
            text = f"is not a known key; {_nearest(path, here, shape)}"
        else:
            text = (
                f"cannot stand here; use {here.schema['propertyNames']['x-expected']}"
            )
        child = find(tree, path) or node
        yield Problem(child.place, path, text)


def _missing(shape: Shape | None, variable: str | None) -> str:
    right = shape.expected if shape else "a value"
    if variable:
        return f"is missing, as {variable} is not set; set it, or write {right}"
    return f"is missing; write {right}"


def _words(fault: Fault, node: Node, shape: Shape) -> str:
    """Say what is wrong with the value of *node*, and what would be right."""
    shown, demand = show(node, shape), fault.demand
    size = len(node.value) if isinstance(node.value, str | list | dict) else 0
    match fault.keyword:
        case "type":
            text = _mistyped(node, shape)
        case "minimum":
            text = f"{shown} is too small; use at least {demand}"
        case "exclusiveMinimum":
            text = f"{shown} is too small; use more than {demand}"
        case "maximum":
            text = f"{shown} is too large; use at most {demand}"
        case "minLength":
            text = f"has {size} characters; use at least {demand}"
        case "maxLength":
            text = f"has {size} characters; use at most {demand}"
        case "minItems":
            text = f"has {size} entries; use at least {demand}"
        case "maxItems" | "maxProperties":
            text = f"has {size} entries; use at most {demand}"
        case "uniqueItems":
            text = "holds an entry twice; keep one of them"
        case _:
            text = f"{shown} cannot be used; use {shape.expected}"
    commented = isinstance(node.value, str) and COMMENT.search(node.value)
    return f"{text}; comments start with '#'" if commented else text


def _mistyped(node: Node, shape: Shape) -> str:
    value = node.value
    if value is None:
        right = "quote it" if shape.secret else f"write {shape.expected}"
        return f"is null; {right}, or leave the key out"
    kind = next(kind for kind in KINDS if is_type(value, kind))
    if shape.types == ["string"] and kind in ("boolean", "number"):
        return f"is {KINDS[kind]}, not text; quote it"
    if kind == "string" and any(is_type(resolve(str(value)), t) for t in shape.types):
        return f"{show(node, shape)} is text; write it without quotes"
    if kind == "string" and shape.types == ["object"]:
        return f"is text, not {shape.expected}; {ADVICE}"
    if isinstance(value, dict | list):
        return f"is {KINDS[kind]}; write {shape.expected}"
    return f"{show(node, shape)} is {KINDS[kind]}; write {shape.expected}"


def show(node: Node, shape: Shape) -> str:
    """Return the value of *node* for a message: short, and never a secret."""
    if shape.secret:
        return "the value"
    if isinstance(node.value, dict | list):
        return "the map" if isinstance(node.value, dict) else "the list"
    if node.shown:
        return f"the value of {shorten(node.shown)}"
    if isinstance(node.value, str):
        # An address may hold a password.
        return shorten(repr(re.sub(r"//[^/\s]*@", "//…@", node.value)))
    return shorten(json.dumps(node.value))


def _nearest(path: Path, shape: Shape, root: Shape) -> str:
    """Say which key the last of *path*, which is not known, may stand for."""
    key = str(path[-1])
    near = {_folded(name): name for name in shape.keys}
    if _folded(key) in near:
        return f"did you mean {near[_folded(key)]}?"
    there = [
        other
        for other, _ in root.walk()
        if other and _folded(str(other[-1])) == _folded(key)
    ]
    if there:
        best = max(there, key=lambda other: _shared(path, other))
        return f"did you mean {dotted(best)}?"
    close = nearest(_folded(key), near)
    if close:
        return f"did you mean {near[close]}?"
    return f"the keys here are {', '.join(shape.keys)}"


def _folded(key: str) -> str:
    return re.sub("[-_]", "", key).lower()


def _shared(path: Path, other: Path) -> int:
    """Return how many parts two paths have in common from their beginning."""
    pairs = enumerate(zip(path, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b and b != "*"), len(path))
