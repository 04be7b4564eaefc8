"""Turns the events of Anthropic's Messages API, or a whole message, into deltas; pure.

Used by ``anthropic_messages``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from edwin.providers.anthropic_talk import THINKING
from edwin.providers.chunks import ErrorAnswer, MalformedAnswer
from edwin.types import (
    Delta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    TurnFinished,
    Usage,
)

MAX_REMEMBERED: Final = 1000
"""Tool calls whose thinking is remembered."""

_FINISH_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_MAX_COUNT = 2**53
_SHOWN_BYTES = 200


class Memory:
    """Remembers the thinking that stood before tool calls, the latest of them.

    The API wants it back, unchanged and signed, as long as the answer goes on that the
    tools were called in; OpenAI's messages have no place for it.

    Args:
        size: How many calls are remembered.

    """

    def __init__(self, size: int = MAX_REMEMBERED) -> None:
        self._size = size
        self._blocks: OrderedDict[str, Sequence[dict[str, Any]]] = OrderedDict()

    def put(self, call_id: str, blocks: Sequence[dict[str, Any]]) -> None:
        """Remember the *blocks* that stood before the call *call_id*."""
        self._blocks[call_id] = blocks
        self._blocks.move_to_end(call_id)
        if len(self._blocks) > self._size:
            self._blocks.popitem(last=False)

    def get(self, call_id: str) -> Sequence[dict[str, Any]]:
        """Return the blocks before the call; none where they are not known any more."""
        if call_id not in self._blocks:
            return ()
        self._blocks.move_to_end(call_id)
        return self._blocks[call_id]


@dataclass(slots=True)
class _Block:
    """A content block under way; *call* is its place among the calls of tools."""

    content: dict[str, Any]
    call: int | None = None
    texts: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)


class MessageDecoder:
    """Decodes one answer, see :class:`edwin.providers.http.Decoder`.

    Args:
        memory: Where the thinking goes that stands before a call of a tool.

    Attributes:
        started: Whether there was a delta.
        done: Whether the end of the message was read.
        finish_reason: In OpenAI's words, None until it came.

    """

    def __init__(self, memory: Memory) -> None:
        self.started = False
        self.done = False
        self.finish_reason: str | None = None
        self._memory = memory
        self._blocks: dict[int, _Block] = {}
        self._thoughts: list[dict[str, Any]] = []
        self._calls = 0
        # Calls that have no arguments so far, by their place.
        self._bare: set[int] = set()
        self._usage: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        """Whether the provider has said why the answer ends."""
        return self.finish_reason is not None

    def feed(self, data: bytes) -> list[Delta]:
        """Decode *data*, which is one event's or a whole message.

        Events and blocks that are not known are passed over.

        Raises:
            MalformedAnswer: If it is no JSON, or JSON of another shape.
            ErrorAnswer: If it is an error object.

        """
        if data == b"[DONE]":
            self.done = True
            return []
        try:
            deltas = self._decode(orjson.loads(data))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if not data.strip():
                return []
            # Reading any other shape of JSON as an event fails with one of these.
            words = data[:_SHOWN_BYTES].decode("utf-8", "replace")
            why = f"{type(error).__name__}: {error}: {words}"
            raise MalformedAnswer(why) from error
        self.started = self.started or bool(deltas)
        return deltas

    def finish(self) -> TurnFinished:
        """Return the end of an answer that is *complete*."""
        reason = self.finish_reason or "stop"
        if self._calls and reason == "stop":
            # Clients carry calls out when the reason says so, and only then.
            reason = "tool_calls"
        elif not self._calls and reason == "tool_calls":
            reason = "stop"
        return TurnFinished(reason, self._counted())

    def _decode(self, event: dict[str, Any]) -> list[Delta]:
        kind = event.get("type")
        if kind == "error" or event.get("error"):
            raise ErrorAnswer(event.get("error") or event)
        if kind == "content_block_delta":
            return self._delta(event["index"], event["delta"])
        if kind == "content_block_start":
            return self._start(event["index"], event["content_block"])
        if kind == "content_block_stop":
            self._stop(event["index"])
        elif kind == "message_start":
            self._count(event["message"].get("usage"))
        elif kind == "message_delta":
            self._count(event.get("usage"))
            return self._ended(event["delta"].get("stop_reason"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "message":
            return self._whole(event)
        elif not _is_text(kind):
            raise TypeError("no event of the Messages API")
        return []

    def _whole(self, message: dict[str, Any]) -> list[Delta]:
        deltas: list[Delta] = []
        for index, block in enumerate(message["content"]):
            deltas += self._start(index, block)
            self._stop(index)
        self._count(message.get("usage"))
        deltas += self._ended(message.get("stop_reason"))
        self.done = True
        return deltas

    def _start(self, index: int, content: dict[str, Any]) -> list[Delta]:
        block = self._blocks[index] = _Block(dict(content))
        kind = content["type"]
        if kind == "text":
            return _text(content.get("text"))
        if kind == "thinking":
            if text := content.get("thinking"):
                block.texts.append(text)
                return [ReasoningDelta(_checked(text))]
        elif kind == "tool_use":
            return self._call(block)
        return []

    def _call(self, block: _Block) -> list[Delta]:
        call, self._calls = self._calls, self._calls + 1
        block.call = call
        id, name = _checked(block.content["id"]), _checked(block.content["name"])
        if self._thoughts:
            self._memory.put(id, tuple(self._thoughts))
            self._thoughts = []
        given = block.content.get("input")
        arguments = orjson.dumps(given).decode() if given else ""
        if not arguments:
            self._bare.add(call)
        return [ToolCallDelta(call, id, name, arguments)]

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Delta]:
        kind = delta["type"]
        if kind == "text_delta":
            return _text(delta["text"])
        block = self._blocks[index]
        if kind == "input_json_delta" and block.call is not None:
            piece = _checked(delta["partial_json"])
            if piece:
                self._bare.discard(block.call)
                return [ToolCallDelta(block.call, None, None, piece)]
        elif kind == "thinking_delta":
            if text := _checked(delta["thinking"]):
                block.texts.append(text)
                return [ReasoningDelta(text)]
        elif kind == "signature_delta":
            block.signatures.append(_checked(delta["signature"]))
        return []

    def _stop(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is None or block.content["type"] not in THINKING:
            return
        content = block.content
        if content["type"] == "thinking":
            content["thinking"] = "".join(block.texts)
            if block.signatures:
                content["signature"] = "".join(block.signatures)
            if not content.get("signature"):
                # Nothing that the API would take back.
                return
        self._thoughts.append(content)

    def _ended(self, reason: Any) -> list[Delta]:
        if not reason:
            return []
        self.finish_reason = _FINISH_REASONS.get(_checked(reason), "stop")
        if self.finish_reason == "length":
            return []
        # No text is no JSON.
        bare, self._bare = sorted(self._bare), set()
        return [ToolCallDelta(call, None, None, "{}") for call in bare]

    def _count(self, usage: Any) -> None:
        """Take in what is counted; of each number the last one counts."""
        if not isinstance(usage, dict):
            return
        details = usage.get("output_tokens_details")
        if isinstance(details, dict):
            usage = {**usage, "thinking_tokens": details.get("thinking_tokens")}
        for name, value in usage.items():
            if type(value) is int and 0 <= value < _MAX_COUNT:
                self._usage[name] = value

    def _counted(self) -> Usage | None:
        found = self._usage
        cached = found.get("cache_read_input_tokens", 0)
        prompt = found.get("input_tokens", 0) + cached
        prompt += found.get("cache_creation_input_tokens", 0)
        completion = found.get("output_tokens", 0)
        if not prompt + completion:
            return None
        return Usage(prompt, completion, cached, found.get("thinking_tokens", 0))


def _text(text: Any) -> list[Delta]:
    return [TextDelta(_checked(text))] if text else []


def _checked(value: Any) -> str:
    if not _is_text(value):
        raise TypeError(f"text is due, and came {type(value).__name__}")
    return str(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
