"""Server-sent events as OpenAI's clients read them: ``data:`` lines and comments."""

from __future__ import annotations

from typing import Any

import orjson

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"

# Raw, these end a line for readers that split with str.splitlines.
_BREAKS = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


def json_line(value: Any) -> bytes:
    """Return *value* as JSON that is one line for every reader."""
    data = orjson.dumps(value)
    for raw, escaped in _BREAKS:
        if raw in data:
            data = data.replace(raw, escaped)
    return data


def event(value: Any) -> bytes:
    """Return the event whose data is *value*."""
    return b"data: " + json_line(value) + b"\n\n"
