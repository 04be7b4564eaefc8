"""The shipped schemas as components of one document that stands alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edwin.validate import retrieve

_SCHEME = "edwin:"
_PLACE = "#/components/schemas/"
_OWN = ("$schema", "$id", "$defs", "examples")


def reference(name: str) -> dict[str, str]:
    """Return a reference to the component of schema *name*, ``runs/run``."""
    return {"$ref": _PLACE + name.replace("/", ".")}


def components(names: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas *names* with all that they refer to, and their examples.

    Schema ``runs/run`` becomes ``runs.run``, what it defines ``runs.run.<name>``, and
    its examples ``runs.run.1`` and so on.

    Raises:
        LookupError: If no shipped schema has one of the names.

    """
    schemas: dict[str, Any] = {}
    examples: dict[str, Any] = {}
    rest = sorted(names, reverse=True)
    while rest:
        name = rest.pop()
        key = name.replace("/", ".")
        if key in schemas:
            continue
        schema = retrieve(_SCHEME + name)
        kept = {k: v for k, v in schema.items() if k not in _OWN}
        schemas[key] = _moved(kept, name, rest)
        for part, defined in schema.get("$defs", {}).items():
            schemas[f"{key}.{part}"] = _moved(defined, name, rest)
        for number, value in enumerate(schema.get("examples", ()), 1):
            examples[f"{key}.{number}"] = {"value": value}
    return schemas, examples


def _moved(node: Any, home: str, seen: list[str]) -> Any:
    """Return *node* of schema *home* with its references led to the components.

    Schemas that it refers to are added to *seen*.
    """
    if isinstance(node, list):
        return [_moved(value, home, seen) for value in node]
    if not isinstance(node, dict):
        return node
    moved = {key: _moved(value, home, seen) for key, value in node.items()}
    if isinstance(target := moved.get("$ref"), str):
        uri, _, pointer = target.partition("#")
        name = uri.removeprefix(_SCHEME) or home
        seen.append(name)
        part = pointer.removeprefix("/$defs/")
        moved["$ref"] = reference(name)["$ref"] + (f".{part}" if part else "")
    return moved
