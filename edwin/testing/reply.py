"""What a scripted answer consists of, and the OpenAI objects it is sent as."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

AUTO: Final = "auto"
BEFORE_HEAD: Final = -1
USAGE: Final[Mapping[str, Any]] = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
}


def words(text: str) -> list[str]:
    """Return *text* cut before each word, as a model streams it; nothing is lost."""
    return re.findall(r"\s*\S+|\s+", text)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One scripted answer; streamed or whole, as the request asks.

    Attributes:
        deltas: Pieces of the answer.  A string is content, a mapping is a ``delta``
            object as it stands.
        gap_s: Seconds between two pieces; 0 sends them all in one write.
        finish_reason: ``auto`` is ``tool_calls`` where there are some, else
            ``stop``; None leaves it out.
        usage: The usage object, None for a provider that gives none.
        tool_calls: Tool calls in the shape of a whole message, after *deltas*.
        logprobs: The ``logprobs`` of each piece, in the order of *deltas*.
        cut: Drop the connection after the last piece, in the middle of the body.
        silent_at: Number of pieces after which nothing more is sent until the
            request is released or closed; ``BEFORE_HEAD`` sends nothing at all.
        status: HTTP status, for answers with a *body*.
        headers: Headers beside, or instead of, the usual ones.
        body: The answer as JSON (or bytes, as they stand), whatever was asked for.
        raw: Bytes written to the socket as they stand, each piece by itself.
        keep_open: Whether the connection stays open after *raw*.

    """

    deltas: Sequence[str | Mapping[str, Any]] = ()
    gap_s: float = 0.0
    finish_reason: str | None = AUTO
    usage: Mapping[str, Any] | None = field(default_factory=lambda: USAGE)
    tool_calls: Sequence[Mapping[str, Any]] = ()
    logprobs: Sequence[Mapping[str, Any] | None] = ()
    cut: bool = False
    silent_at: int | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    raw: Sequence[bytes] | None = None
    keep_open: bool = False

    @property
    def reason(self) -> str | None:
        """The finish reason as it goes out."""
        if self.finish_reason != AUTO:
            return self.finish_reason
        return "tool_calls" if self.tool_calls else "stop"

    def pieces(self) -> list[dict[str, Any]]:
        """Return the choice objects of the stream, one for each piece."""
        pieces = []
        for index, piece in enumerate(self.deltas):
            delta = {"content": piece} if isinstance(piece, str) else dict(piece)
            logprobs = self.logprobs[index] if index < len(self.logprobs) else None
            pieces.append(_choice(delta, logprobs=logprobs))
        for index, call in enumerate(self.tool_calls):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            half = len(arguments) // 2
            for piece in (
                {"id": call["id"], "type": "function", "function": {"name": name}},
                {"function": {"arguments": arguments[:half]}},
                {"function": {"arguments": arguments[half:]}},
            ):
                pieces.append(_choice({"tool_calls": [{"index": index} | piece]}))
        return pieces

    def chunk(self, request: Mapping[str, Any], *choices: Any) -> dict[str, Any]:
        """Return a ``chat.completion.chunk`` that answers *request*."""
        return {
            "id": "chatcmpl-scripted",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": request.get("model", ""),
            "choices": choices,
        }

    def opening(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the first chunk, which names the role."""
        return self.chunk(request, _choice({"role": "assistant", "content": ""}))

    def closing(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the last chunks: finish reason, and usage where it was asked for."""
        chunks = []
        if self.reason is not None:
            last = _choice({}) | {"finish_reason": self.reason}
            chunks.append(self.chunk(request, last))
        wanted = (request.get("stream_options") or {}).get("include_usage")
        if wanted and self.usage is not None:
            chunks.append(self.chunk(request) | {"usage": self.usage})
        return chunks

    def whole(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``chat.completion`` that answers *request*."""
        message: dict[str, Any] = {"role": "assistant", "content": None}
        for piece in self.deltas:
            delta = {"content": piece} if isinstance(piece, str) else piece
            for name, value in delta.items():
                message[name] = (message.get(name) or "") + value
        message.setdefault("refusal", None)
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        tokens = [token for part in self.logprobs if part for token in part["content"]]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": tokens, "refusal": None} if tokens else None,
            "finish_reason": self.reason,
        }
        document = self.chunk(request, choice) | {"object": "chat.completion"}
        return document if self.usage is None else document | {"usage": self.usage}


def echo(request: Mapping[str, Any]) -> Reply:
    """Return the answer that says the last user message of *request* again."""
    for message in reversed(request.get("messages") or []):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if not isinstance(content, str):
                content = "".join(part.get("text", "") for part in content)
            return Reply(deltas=words(content))
    return Reply()


def _choice(delta: Mapping[str, Any], *, logprobs: Any = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}
