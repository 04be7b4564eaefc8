"""Read a configuration file: YAML with fewer surprises, as a tree with places.

The C parser of PyYAML does the reading (Python's own fails on tabs inside braces),
and only its events are used, so that depth, size and aliases are bounded here.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml import events

from edwin.config.tree import (
    ADVICE,
    COMMENT,
    MAX_DEPTH,
    MAX_NODES,
    Node,
    Place,
    Problem,
    Scalar,
    fault,
    resolve,
)
from edwin.errors import ConfigError

MAX_BYTES = 1 << 20

GLUED = re.compile(r"\w:[^\s/]|(^|\s)(//|/\*)")
TAGS = (None, "!", "tag:yaml.org,2002:str")


def parse(content: bytes, source: str, rank: int) -> Node:
    """Return the tree of a YAML document; an empty document is an empty map.

    Args:
        content: The file's bytes, UTF-8.
        source: The file's name, for messages.
        rank: Place of the file among the sources of one configuration.

    Raises:
        ConfigError: If it is not one YAML document that holds a map, or uses what
            is refused here: duplicate or complex keys, merge keys, tags, and more
            nesting, values or aliases than a configuration can need.

    """
    if not yaml.__with_libyaml__:
        raise ConfigError(
            f"{source}: cannot be read, because PyYAML has no C parser here;"
            " install a PyYAML that was built with libyaml"
        )
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{source}: is larger than 1 MiB; shorten it")
    try:
        return _Reader(content.decode("utf-8-sig"), source, rank).document()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}:{line}: is not UTF-8; save it as UTF-8") from None


class _Reader:
    """One pass over a document's events."""

    def __init__(self, text: str, source: str, rank: int) -> None:
        self._text = text
        self._source = source
        self._rank = rank
        self._parser: Any = None
        self._count = 0
        self._path: list[str | int] = []
        # Each anchored node, and how many nodes an alias of it adds.
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._problems: list[Problem] = []

    def document(self) -> Node:
        """Return the tree of the only document."""
        try:
            self._parser = yaml.CSafeLoader(self._text)
            root = self._document()
        except yaml.reader.ReaderError as error:
            # The C parser counts bytes.
            line = self._text.encode().count(b"\n", 0, error.position) + 1
            self._note(
                Place(self._source, line), "holds a control character; remove it"
            )
            raise fault(self._problems) from None
        except yaml.MarkedYAMLError as error:
            self._note(*self._unreadable(error))
            raise fault(self._problems) from None
        if root.value is None:
            root = Node({}, root.place)
        if not isinstance(root.value, dict):
            self._note(root.place, f"holds no keys with values; {ADVICE}")
        if self._problems:
            raise fault(self._problems)
        return root

    def _document(self) -> Node:
        next_event = self._parser.get_event
        next_event()
        if isinstance(next_event(), events.StreamEndEvent):
            return Node({}, Place(self._source))
        event = next_event()
        root = self._node(event, self._place(event))
        next_event()
        event = next_event()
        if not isinstance(event, events.StreamEndEvent):
            self._note(self._place(event), "a second document begins; keep one")
        return root

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self._source, mark.line + 1, (self._rank, mark.index))

    def _note(self, place: Place, text: str) -> None:
        self._problems.append(Problem(place, tuple(self._path), text))

    def _stop(self, place: Place, text: str) -> ConfigError:
        self._note(place, text)
        return fault(self._problems)

    def _node(self, event: Any, place: Place) -> Node:
        before = self._count
        self._count += 1
        if isinstance(event, events.AliasEvent):
            return self._alias(event, place)
        if event.tag not in TAGS:
            self._note(place, "has a tag; quote a value that begins with '!'")
        if self._count > MAX_NODES or len(self._path) > MAX_DEPTH:
            raise self._stop(place, "too many values, or nested too deep; write less")
        value: dict[str, Node] | list[Node] | Scalar
        if isinstance(event, events.MappingStartEvent):
            value = self._mapping(bool(event.flow_style))
        elif isinstance(event, events.SequenceStartEvent):
            value = self._sequence(bool(event.flow_style))
        else:
            unquoted = event.implicit[0] and event.tag is None
            value = resolve(event.value) if unquoted else event.value
        node = Node(value, place)
        if event.anchor:
            # Known from here on: an alias inside its own value finds nothing.
            self._anchors[event.anchor] = node, self._count - before
        return node

    def _alias(self, event: Any, place: Place) -> Node:
        if event.anchor not in self._anchors:
            raise self._stop(
                place, "names no earlier anchor; quote a value that begins with '*'"
            )
        node, count = self._anchors[event.anchor]
        self._count += count
        if self._count > MAX_NODES:
            raise self._stop(place, "aliases stand for too many values; use fewer")
        return Node(node.value, place)

    def _sequence(self, braces: bool) -> list[Node]:
        items: list[Node] = []
        while not isinstance(
            event := self._parser.get_event(), events.SequenceEndEvent
        ):
            self._path.append(len(items))
            if braces:
                self._check_comment(event)
            items.append(self._node(event, self._place(event)))
            self._path.pop()
        return items

    def _mapping(self, braces: bool) -> dict[str, Node]:
        children: dict[str, Node] = {}
        while not isinstance(event := self._parser.get_event(), events.MappingEndEvent):
            place = self._place(event)
            if not isinstance(event, events.ScalarEvent):
                raise self._stop(place, "a key must be text; write key: value")
            if braces:
                self._check_comment(event)
            key = event.value
            glued = braces and event.implicit[0] and ":" in key
            # What follows the colon may be a secret.
            self._path.append(key.partition(":")[0] if glued else key)
            value = self._parser.get_event()
            if glued and _is_empty(value):
                self._note(place, f"has no value of its own; {ADVICE}")
                self._path.pop()
                continue
            if braces:
                self._check_comment(value)
            node = self._node(value, place)
            if key in children:
                first = children[key].place.line
                self._note(place, f"stands in line {first} already; keep one of them")
            elif key == "<<":
                self._note(place, "merge keys are not supported; write the keys out")
            else:
                children[key] = node
            self._path.pop()
        return children

    def _check_comment(self, event: Any) -> None:
        """Stop at ``// text``, which YAML inside braces reads as part of a value."""
        if (
            isinstance(event, events.ScalarEvent)
            and event.implicit[0]
            and COMMENT.search(event.value)
        ):
            raise self._stop(
                self._place(event), "comments start with '#'; quote '//' that is meant"
            )

    def _unreadable(self, error: yaml.MarkedYAMLError) -> tuple[Place, str]:
        """Return where and why the parser gave up, and what would be right."""
        mark, begin = error.problem_mark, error.context_mark
        problem = error.problem or "cannot be read"
        early = "expected ':'" in problem or "end of stream" in problem
        if begin and (mark is None or early):
            mark = begin
        line = mark.line if mark else 0
        index = mark.index if mark else 0
        if begin and begin.line != line:
            problem += f" for what begins in line {begin.line + 1}"
        found = self._text.split("\n")[line : line + 1]
        if "tab" in problem or self._text[index : index + 1] == "\t":
            right = "indent with blanks; tabs may indent only inside braces"
        elif "{" in self._text[: index + 1] or any(map(GLUED.search, found)):
            right = ADVICE
        else:
            right = "quote values that begin with a sign or hold ': '"
        place = Place(self._source, line + 1, (self._rank, index))
        return place, f"{problem}; {right}"


def _is_empty(event: Any) -> bool:
    """Say whether nothing stands where *event* is; after ``enabled:true`` it does."""
    return (
        isinstance(event, events.ScalarEvent) and event.implicit[0] and not event.value
    )
