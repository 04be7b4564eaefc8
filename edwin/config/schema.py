"""Walk the schemas of ``schemas/config`` beside a configuration.

``config`` fits a tree to them, ``check`` finds the names of a wrong one in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from edwin.config.tree import Node, Path, resolve
from edwin.config.variables import VARIABLE
from edwin.validate import retrieve

ROOT = "config/edwin"

TYPES: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {
        "boolean": bool,
        "integer": int,
        "number": (int, float),
        "string": str,
        "object": dict,
        "array": list,
    }
)
WANTED: Mapping[str, str] = MappingProxyType(
    {
        "boolean": "true or false",
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "object": "a map of keys",
        "array": "a list",
    }
)


class Shape:
    """What the schemas say of one place in a configuration.

    Args:
        documents: The schemas by ``$id``; those that are referred to are added.
        base: ``$id`` of the document that *schema* stands in.
        schema: The part of it; a ``$ref`` is followed.

    """

    def __init__(
        self, documents: dict[str, Any], base: str, schema: Mapping[str, Any]
    ) -> None:
        while "$ref" in schema:
            target, _, name = schema["$ref"].partition("#/$defs/")
            base = target or base
            if base not in documents:
                documents[base] = retrieve(base)
            document = documents[base]
            own = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**(document["$defs"][name] if name else document), **own}
        self._documents = documents
        self._base = base
        self.schema = schema

    @classmethod
    def load(cls) -> Shape:
        """Return the shape of the whole configuration."""
        return cls({}, "", {"$ref": f"edwin:{ROOT}"})

    @property
    def types(self) -> list[str]:
        """The types a value here may have; empty: any."""
        types = self.schema.get("type", [])
        return [types] if isinstance(types, str) else types

    @property
    def secret(self) -> bool:
        """Whether a value here must never be shown."""
        return bool(self.schema.get("writeOnly"))

    @property
    def keys(self) -> list[str]:
        """The keys a map here may have by name."""
        return list(self.schema.get("properties", {}))

    @property
    def expected(self) -> str:
        """What would be right here, in words."""
        if "x-expected" in self.schema:
            return str(self.schema["x-expected"])
        if "enum" in self.schema:
            *others, last = self.schema["enum"]
            return f"{', '.join(others)} or {last}"
        return " or ".join(WANTED[kind] for kind in self.types) or "a value"

    def child(self, part: str | int) -> Shape | None:
        """Return the shape of key or index *part*, or None where all is allowed."""
        if isinstance(part, int):
            schema = self.schema.get("items")
        else:
            schema = self.schema.get("properties", {}).get(part)
            schema = schema or self.schema.get("additionalProperties")
        return Shape(self._documents, self._base, schema) if schema else None

    def at(self, path: Path) -> Shape | None:
        """Return the shape of what stands at *path*, or None where all is allowed."""
        shape: Shape | None = self
        for part in path:
            shape = shape.child(part) if shape else None
        return shape

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Shape]]:
        """Yield every key that has a name, with its path; ``*`` is any key or item."""
        yield path, self
        for key in self.keys:
            child = self.child(key)
            if child:
                yield from child.walk((*path, key))
        for word in ("additionalProperties", "items"):
            if isinstance(self.schema.get(word), dict):
                below = Shape(self._documents, self._base, self.schema[word])
                yield from below.walk((*path, "*"))


def fit(node: Node, shape: Shape | None) -> Node:
    """Return the tree with what YAML cannot know put right.

    A section or list without a value is an empty one.  A value that is one variable
    is a number or a bool where the schema wants that.
    """
    if shape is None:
        return node
    value = node.value
    if value is None and shape.types == ["object"]:
        return replace(node, value={})
    if value is None and shape.types == ["array"]:
        return replace(node, value=[])
    if isinstance(value, dict):
        pairs = value.items()
        return replace(node, value={k: fit(v, shape.child(k)) for k, v in pairs})
    if isinstance(value, list):
        items = [fit(item, shape.child(i)) for i, item in enumerate(value)]
        return replace(node, value=items)
    if isinstance(value, str) and node.shown and VARIABLE.fullmatch(node.shown):
        number = resolve(value)
        if any(is_type(number, kind) for kind in shape.types):
            return replace(node, value=number)
    return node


def is_type(value: object, kind: str) -> bool:
    """Say whether *value* is of the schema type *kind*; a bool is no number."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[kind])
