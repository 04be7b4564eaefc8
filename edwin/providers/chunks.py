"""Turns OpenAI chat completion objects, and their dialects, into deltas; pure.

Used by ``openai_completions`` for the chunks of a stream and for whole answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from edwin.types import (
    Delta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    TurnFinished,
    Usage,
)

# What providers say, by the five words of OpenAI's schema; any other word is "stop".
_FINISH_REASONS = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "function_call",
    "content_filter": "content_filter",
    "safety": "content_filter",
}
_MAX_COUNT = 2**53


class MalformedAnswer(ValueError):
    """What came is not a chat completion object."""


class ErrorAnswer(Exception):
    """An error object came where a chat completion object was due."""

    def __init__(self, error: Any) -> None:
        super().__init__("an error object came instead of an answer")
        self.error = error


@dataclass(slots=True)
class _ToolCall:
    index: int
    id: str | None
    name: str | None = None
    held: str = ""


class AnswerDecoder:
    """Decodes one answer, object by object, and knows how it ended.

    Args:
        new_id: Makes an id for a tool call that came without one.

    Attributes:
        started: Whether there was a delta.
        done: Whether ``[DONE]`` was read.
        finish_reason: In OpenAI's words, None until it came.

    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.started = False
        self.done = False
        self.finish_reason: str | None = None
        self._new_id = new_id
        self._usage: Any = None
        self._calls: list[_ToolCall] = []
        self._current: dict[int | None, _ToolCall] = {}

    @property
    def complete(self) -> bool:
        """Whether the provider has said that the answer is whole.

        ``[DONE]`` says so without a finish reason too, but not all alone: that is
        what some proxies send when they have swallowed an error.
        """
        return self.finish_reason is not None or (self.done and self.started)

    def feed(self, data: bytes) -> list[Delta]:
        """Decode *data*, which is one event's or a whole answer.

        Raises:
            MalformedAnswer: If it is no JSON, or JSON of another shape.
            ErrorAnswer: If it is an error object.

        """
        if data == b"[DONE]":
            self.done = True
            return []
        deltas: list[Delta] = []
        try:
            self._decode(orjson.loads(data), deltas)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # Reading any other shape of JSON as a chunk fails with one of these.
            raise MalformedAnswer(f"{type(error).__name__}: {error}") from error
        if deltas:
            self.started = True
        return deltas

    def finish(self) -> TurnFinished:
        """Return the end of an answer that is *complete*.

        Raises:
            MalformedAnswer: If a tool call never got its name.

        """
        if any(call.name is None for call in self._calls):
            raise MalformedAnswer("a tool call has no name")
        reason = self.finish_reason or "stop"
        # Clients run tools when the reason says so; some providers leave it at stop.
        if self._calls and reason == "stop":
            reason = "tool_calls"
        return TurnFinished(reason, _usage(self._usage))

    def _decode(self, document: dict[str, Any], deltas: list[Delta]) -> None:
        if document.get("error"):
            raise ErrorAnswer(document["error"])
        if document.get("object") == "error":
            raise ErrorAnswer(document)
        if document.get("usage"):
            self._usage = document["usage"]
        for choice in document.get("choices") or ():
            if choice.get("index"):
                continue
            message = choice.get("delta") or choice.get("message")
            if message:
                logprobs = choice.get("logprobs")
                known = isinstance(logprobs, dict)
                self._message(message, logprobs if known else None, deltas)
            if reason := choice.get("finish_reason"):
                if reason == "error":
                    raise ErrorAnswer(choice.get("error"))
                self.finish_reason = _FINISH_REASONS.get(reason.lower(), "stop")

    def _message(
        self, message: dict[str, Any], logprobs: Any, deltas: list[Delta]
    ) -> None:
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            deltas.append(ReasoningDelta(reasoning))
        content = message.get("content")
        if isinstance(content, list):
            _parts(content, deltas)
        elif content:
            deltas.append(TextDelta(_text(content), logprobs))
        elif logprobs and logprobs.get("content"):
            # A part of a character has no text yet, but it has logprobs.
            deltas.append(TextDelta("", logprobs))
        refusal = message.get("refusal")
        if refusal and isinstance(refusal, str):
            deltas.append(RefusalDelta(refusal))
        for piece in message.get("tool_calls") or ():
            self._tool_call(piece, deltas)

    def _tool_call(self, piece: dict[str, Any], deltas: list[Delta]) -> None:
        function = piece.get("function") or {}
        name, arguments = function.get("name"), function.get("arguments")
        if arguments is None:
            arguments = ""
        elif not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        call = self._call(piece.get("index"), piece.get("id"), name)
        if call.name is not None:
            if arguments:
                deltas.append(ToolCallDelta(call.index, None, None, arguments))
            return
        call.held += arguments
        if name:
            call.name = _text(name)
            call.id = _text(call.id or self._new_id())
            deltas.append(ToolCallDelta(call.index, call.id, call.name, call.held))

    def _call(self, index: int | None, id: str | None, name: str | None) -> _ToolCall:
        """Return the call a piece belongs to, which may be a new one.

        Some providers leave the index out, or send 0 for every call: there a name
        with another id, or with none at all, begins a new call.  An id alone does
        not: some make up another for each piece.
        """
        call = self._current.get(index)
        named_again = call is not None and call.name is not None and bool(name)
        if call is None or (named_again and (id != call.id if id else index is None)):
            call = _ToolCall(len(self._calls), id or None)
            self._calls.append(call)
            self._current[index] = call
        call.id = call.id or id
        return call


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is due, and came {type(value).__name__}")
    return value


def _parts(parts: Iterable[Any], deltas: list[Delta]) -> None:
    for part in parts:
        if part.get("type") == "thinking":
            text = "".join(inner.get("text", "") for inner in part["thinking"])
            deltas.append(ReasoningDelta(text))
        elif part.get("text"):
            deltas.append(TextDelta(_text(part["text"])))


def _usage(document: Any) -> Usage | None:
    usage = Usage(
        _count(document, "prompt_tokens"),
        _count(document, "completion_tokens"),
        _count(document, "prompt_tokens_details", "cached_tokens"),
        _count(document, "completion_tokens_details", "reasoning_tokens"),
    )
    # Zeros are what servers send that do not count.
    return usage if usage.total_tokens else None


def _count(document: Any, *path: str) -> int:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document if type(document) is int and 0 < document < _MAX_COUNT else 0
