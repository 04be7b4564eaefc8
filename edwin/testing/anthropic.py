"""A provider that speaks Anthropic's Messages API, answering from a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from edwin.testing.reply import AUTO, USAGE, Reply
from edwin.testing.upstream import Request, ScriptedUpstream, When

_REASONS = {"tool_calls": "tool_use", "length": "max_tokens", "stop": "end_turn"}


@dataclass(frozen=True, kw_only=True)
class MessageReply(Reply):
    """One scripted message.

    Attributes:
        blocks: Its content blocks, as they stand in a whole message.
        stop_reason: ``auto`` is ``tool_use`` where there is a call, else ``end_turn``;
            None leaves the end out.
        tokens: Its ``usage``.
        piece: Characters of each delta in a stream.

    """

    blocks: tuple[Mapping[str, Any], ...] = ()
    stop_reason: str | None = AUTO
    tokens: Mapping[str, Any] = field(
        default_factory=lambda: {
            "input_tokens": USAGE["prompt_tokens"],
            "output_tokens": USAGE["completion_tokens"],
        }
    )
    piece: int = 8

    def message(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole message that answers *request*."""
        reason = self.stop_reason
        if reason == AUTO:
            calls = any(block["type"] == "tool_use" for block in self.blocks)
            reason = "tool_use" if calls else "end_turn"
        return {
            "id": "msg_scripted",
            "type": "message",
            "role": "assistant",
            "model": request.get("model", ""),
            "content": list(self.blocks),
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": dict(self.tokens),
        }

    def events(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the events of the stream that answers *request*."""
        whole = self.message(request)
        start = {**whole, "content": [], "stop_reason": None}
        start["usage"] = {**self.tokens, "output_tokens": 1}
        found = [_event("message_start", message=start), _event("ping")]
        for index, block in enumerate(self.blocks):
            empty, deltas = _pieces(block, self.piece)
            found.append(
                _event("content_block_start", index=index, content_block=empty)
            )
            found += [
                _event("content_block_delta", index=index, delta=delta)
                for delta in deltas
            ]
            found.append(_event("content_block_stop", index=index))
        if whole["stop_reason"] is not None:
            delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
            found.append(_event("message_delta", delta=delta, usage=dict(self.tokens)))
            found.append(_event("message_stop"))
        return found

    def told(self, request: Mapping[str, Any]) -> Reply:
        """Return the answer to *request* in bytes, streamed or whole as it asks."""
        if not request.get("stream"):
            return Reply(body=self.message(request))
        body = b"".join(map(encoded, self.events(request)))
        return Reply(body=body, headers={"Content-Type": "text/event-stream"})


class ScriptedAnthropic(ScriptedUpstream):
    """A :class:`ScriptedUpstream` whose answers are messages.

    What is queued as texts and tool calls is translated; answers of bytes or with a
    body go out as they stand.
    """

    def message(
        self, *blocks: Mapping[str, Any], when: When | None = None, **fields: Any
    ) -> None:
        """Queue the message of *blocks*; *fields* are those of a ``MessageReply``."""
        self.queue(MessageReply(blocks=blocks, **fields), when=when)

    async def _arrived(self, request: Request) -> Reply:
        reply = await super()._arrived(request)
        if not isinstance(reply, MessageReply):
            if reply.raw is not None or reply.body is not None:
                return reply
            reply = _translated(reply)
        return reply.told(request.body)


def encoded(event: Mapping[str, Any]) -> bytes:
    """Return the bytes of *event* in a stream."""
    name = event["type"].encode()
    return b"event: %s\ndata: %s\n\n" % (name, orjson.dumps(event))


def _event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def _translated(reply: Reply) -> MessageReply:
    text = "".join(piece for piece in reply.deltas if isinstance(piece, str))
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for call in reply.tool_calls:
        function = call["function"]
        use = {"type": "tool_use", "id": call["id"], "name": function["name"]}
        blocks.append(use | {"input": orjson.loads(function["arguments"])})
    reason = reply.reason
    return MessageReply(
        blocks=tuple(blocks), stop_reason=reason and _REASONS.get(reason, reason)
    )


def _pieces(
    block: Mapping[str, Any], size: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how *block* begins in a stream, and the deltas that make it whole."""
    kind = block["type"]
    if kind == "text":
        pieces = _cut(block["text"], size)
        return {**block, "text": ""}, [
            {"type": "text_delta", "text": piece} for piece in pieces
        ]
    if kind == "thinking":
        deltas = [
            {"type": "thinking_delta", "thinking": piece}
            for piece in _cut(block["thinking"], size)
        ]
        if signature := block.get("signature"):
            deltas.append({"type": "signature_delta", "signature": signature})
        return {**block, "thinking": "", "signature": ""}, deltas
    if kind == "tool_use":
        text = orjson.dumps(block["input"]).decode() if block["input"] else ""
        return {**block, "input": {}}, [
            {"type": "input_json_delta", "partial_json": piece}
            for piece in ("", *_cut(text, size))
        ]
    return dict(block), []


def _cut(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]
