"""What an MCP server's tool gives back, as text that a model reads; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from edwin.errors import shorten
from edwin.tools.base import ToolFailed
from edwin.tools.results import fitting
from edwin.types import McpServer

if TYPE_CHECKING:
    from mcp_types import CallToolResult


def text(result: CallToolResult) -> str:
    """Return what *result* says, one part of it a line; what is no text as a note.

    Structured content stands in where there is no text.

    Raises:
        ToolFailed: If the server says that the call failed, or if it is too large.

    """
    said = list(filter(None, map(_text_of, result.content)))
    if not said and result.structured_content is not None:
        said = [_json(result.structured_content)]
    notes = filter(None, map(_note_on, result.content))
    whole = "\n".join((*said, *notes))
    if result.is_error and not whole.strip():
        raise ToolFailed("the tool failed, and does not say why")
    whole = fitting(whole)
    if result.is_error:
        raise ToolFailed(whole)
    return whole


def one_line(message: str, secrets: Iterable[str] = (), limit: int = 300) -> str:
    """Return *message* as one line of at most *limit* characters, *secrets* masked."""
    for secret in secrets:
        message = message.replace(secret, "***")
    valid = message[: 4 * limit].encode("utf-8", "replace").decode()
    return shorten(" ".join(valid.split()), limit)


def secrets(server: McpServer) -> list[str]:
    """Return what of *server* may stand in no log."""
    given = (*server.env.values(), *server.headers.values())
    # Shorter ones are words such as "1", and would make a line unreadable.
    return sorted((value for value in given if len(value) >= 6), key=len, reverse=True)


def _text_of(part: Any) -> str | None:
    """Return the text of *part*, or None if it is none."""
    if part.type == "text":
        return str(part.text)
    if part.type == "resource":
        inside = getattr(part.resource, "text", None)
        return None if inside is None else str(inside)
    return None


def _note_on(part: Any) -> str | None:
    """Return what there is to say of *part* in place of it; None: it is text."""
    if part.type in ("image", "audio"):
        return _note(part.type, part.mime_type, part.data)
    if part.type == "resource_link":
        return f"[link {one_line(str(part.uri))}: not followed]"
    if part.type == "resource" and getattr(part.resource, "text", None) is None:
        kind = part.resource.mime_type or "of an unknown type"
        return _note("resource", kind, part.resource.blob)
    return None


def _note(what: str, kind: str, base64: str) -> str:
    size = len(base64) * 3 // 4 - base64[-2:].count("=")
    return f"[{what} {one_line(kind, limit=80)}, {size:,} bytes: not passed on]"


def _json(value: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise ToolFailed(f"the result cannot be passed on: {error}") from error
