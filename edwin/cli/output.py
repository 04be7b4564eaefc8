"""How commands print what they found: for people, or as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

Row = Sequence[str]


def echo_json(value: Any) -> None:
    """Print *value* as one line of JSON."""
    from edwin.wire.sse import json_line

    click.echo(json_line(value))


def table(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table whose columns are as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def facts(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a line for each name and what is known of it; nothing is left out."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        yield f"{name.ljust(width)}  {value}".rstrip()


def moment(at: float | None) -> str:
    """Return the time *at* (unix seconds) in UTC, or a dash."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def printable(text: str) -> str:
    """Return *text* without what a terminal would take for a command.

    Anybody who may talk to an agent wrote it; line breaks and tabs are left.
    """
    return "".join(map(_shown, text))


def message_text(message: dict[str, Any]) -> str:
    """Return what a message says, with a word for what is no text."""
    content = message.get("content")
    lines = [content] if isinstance(content, str) else map(_part, content or ())
    shown = [line for line in lines if line]
    if message.get("refusal"):
        shown.append(message["refusal"])
    for call in message.get("tool_calls") or ():
        function = call["function"]
        shown.append(f"[calls {function['name']} {function['arguments']}]")
    return printable("\n".join(shown))


def _part(part: dict[str, Any]) -> str:
    kind = part["type"]
    return str(part[kind]) if kind in ("text", "refusal") else f"[{kind}]"


def _shown(letter: str) -> str:
    if letter in "\n\t" or letter.isprintable():
        return letter
    return letter.encode("unicode_escape").decode()
