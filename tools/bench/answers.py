"""The bytes the upstream answers with, and how they are cut; pure.

Every delta's text is :data:`MARK`, so that what arrives can be counted without being
parsed, whether it comes as chunks, as one message, or relayed as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MARK = b" token"
_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_WHOLE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
_END = b"0\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How the upstream answers until it is told otherwise.

    Attributes:
        deltas: How many pieces of text.
        gap_s: Seconds between two of them; 0 sends each as soon as every other stream
            has had its turn, None sends the whole answer at once.
        silent: Whether nothing follows the first delta, the end neither.

    """

    deltas: int
    gap_s: float | None = None
    silent: bool = False

    def pieces(self) -> list[bytes]:
        """Return what is sent, piece by piece.

        The first has the head and the role, the last the usage and the end.
        """
        parts = [_chunk(_event({"content": MARK.decode()}))] * self.deltas
        parts[0] = (
            _HEAD + _chunk(_event({"role": "assistant", "content": ""})) + parts[0]
        )
        if self.silent:
            return parts[:1]
        parts[-1] += _chunk(_event({}, "stop")) + _chunk(_usage(self.deltas))
        parts[-1] += _chunk(b"data: [DONE]\n\n") + _END
        return [b"".join(parts)] if self.gap_s is None else parts

    def whole(self) -> bytes:
        """Return the answer for who wants no stream: one body, at once."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": MARK.decode() * self.deltas},
            "finish_reason": "stop",
        }
        usage = _counts(self.deltas)
        document = {"choices": [choice], "usage": usage}
        body = _json(document | {"object": "chat.completion"})
        return _WHOLE_HEAD % len(body) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return _data({"choices": [choice]})


def _usage(deltas: int) -> bytes:
    return _data({"choices": [], "usage": _counts(deltas)})


def _counts(deltas: int) -> dict[str, int]:
    counts = {"prompt_tokens": 20, "completion_tokens": deltas}
    return counts | {"total_tokens": 20 + deltas}


def _data(rest: dict[str, Any]) -> bytes:
    return b"data: " + _json(rest) + b"\n\n"


def _json(rest: dict[str, Any]) -> bytes:
    head = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "mock",
    }
    return json.dumps(head | rest, separators=(",", ":")).encode()
