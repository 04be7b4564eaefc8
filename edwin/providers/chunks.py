"""Turns OpenAI chat completion objects, and their dialects, into deltas; pure.

Used by ``openai_completions`` for the chunks of a stream and for whole answers.
docs/providers.md says which server speaks how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

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
    "max_output_tokens": "length",
    "max_length": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "function_call",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "image_safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
}
# Words for an answer that the model did not bring to its end.
_BROKEN_OFF = {
    "error",
    "abort",
    "aborted",
    "cancelled",
    "network_error",
    "insufficient_system_resource",
    "malformed_function_call",
}
_BESIDES_TEXT = frozenset(
    {
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "refusal",
        "tool_calls",
        "function_call",
    }
)
OLLAMA_NATIVE: Final = "ollama_native_api"
"""Code of the error that stands for an answer of Ollama's own API."""
_MAX_COUNT = 2**53
_SHOWN_BYTES = 200


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
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def is_whole(self) -> bool:
        if not (self.pieces and self.pieces[-1].endswith("}")):
            return False
        try:
            orjson.loads(self.arguments)
        except ValueError:
            return False
        return True


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
        deltas: list[Delta] = []
        if data == b"[DONE]":
            self.done = True
            self._fill(deltas)
            return deltas
        try:
            self._decode(orjson.loads(data), deltas)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            data = data.strip()
            if not data:
                return []
            if data == b"[DONE]":
                return self.feed(data)
            # Reading any other shape of JSON as a chunk fails with one of these.
            words = data[:_SHOWN_BYTES].decode("utf-8", "replace")
            why = f"{type(error).__name__}: {error}: {words}"
            raise MalformedAnswer(why) from error
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
        # Clients run tools when the reason says so, and only then; some providers
        # leave it at stop, others say it though there is no call.
        if self._calls and reason in ("stop", "function_call"):
            reason = "tool_calls"
        elif not self._calls and reason in ("tool_calls", "function_call"):
            reason = "stop"
        return TurnFinished(reason, _usage(self._usage))

    def _decode(self, document: dict[str, Any], deltas: list[Delta]) -> None:
        if document.get("error"):
            raise ErrorAnswer(_innermost(document["error"]))
        if document.get("usage"):
            self._usage = document["usage"]
        choices = document.get("choices")
        if not choices:
            _refuse(document)
            return
        for choice in choices:
            if choice.get("index"):
                continue
            message = choice.get("delta") or choice.get("message")
            if message:
                logprobs = choice.get("logprobs")
                known = isinstance(logprobs, dict)
                self._message(message, logprobs if known else None, deltas)
            if reason := choice.get("finish_reason"):
                self._finished(reason, choice.get("error"))
                self._fill(deltas)

    def _finished(self, reason: str, error: Any) -> None:
        # Gemini writes its own word behind the one of the schema.
        word = reason.lower().partition(":")[0]
        if word in _BROKEN_OFF:
            said = {"code": 502, "message": f"the finish reason is {reason}"}
            raise ErrorAnswer(_innermost(error) or said)
        self.finish_reason = _FINISH_REASONS.get(word, "stop")

    def _fill(self, deltas: list[Delta]) -> None:
        """Give the calls that end without arguments some: no text is no JSON."""
        if self.finish_reason == "length":
            return
        for call in self._calls:
            if call.name is not None and not call.pieces:
                call.pieces.append("{}")
                deltas.append(ToolCallDelta(call.index, None, None, "{}"))

    def _message(
        self, message: dict[str, Any], logprobs: Any, deltas: list[Delta]
    ) -> None:
        # Nearly every piece is text and nothing else.
        plain = _BESIDES_TEXT.isdisjoint(message)
        if not plain and (reasoning := _reasoning(message)):
            deltas.append(ReasoningDelta(reasoning))
        content = message.get("content")
        if isinstance(content, list):
            _parts(content, deltas)
        elif content:
            deltas.append(TextDelta(_text(content), logprobs))
        elif logprobs and logprobs.get("content"):
            # A part of a character has no text yet, but it has logprobs.
            deltas.append(TextDelta("", logprobs))
        if not plain:
            self._rest_of(message, deltas)

    def _rest_of(self, message: dict[str, Any], deltas: list[Delta]) -> None:
        refusal = message.get("refusal")
        if refusal and isinstance(refusal, str):
            deltas.append(RefusalDelta(refusal))
        calls = message.get("tool_calls")
        for piece in calls or ():
            self._tool_call(piece, deltas)
        # The form before tool_calls; some servers send both.
        if (legacy := message.get("function_call")) and not calls:
            self._tool_call({"function": legacy}, deltas)

    def _tool_call(self, piece: dict[str, Any], deltas: list[Delta]) -> None:
        function = piece.get("function") or {}
        id, name = piece.get("id"), function.get("name")
        arguments = function.get("arguments")
        if arguments is None:
            arguments = ""
        elif not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        if not (id or name or arguments):
            # Metadata of some provider's own, which belongs to no call.
            return
        call = self._call(piece.get("index"), id, name, arguments)
        if arguments:
            call.pieces.append(arguments)
        if call.name is not None:
            if arguments:
                deltas.append(ToolCallDelta(call.index, None, None, arguments))
        elif name:
            call.name = _text(name)
            call.id = _text(call.id or self._new_id())
            deltas.append(ToolCallDelta(call.index, call.id, call.name, call.arguments))

    def _call(
        self, index: int | None, id: str | None, name: str | None, arguments: str
    ) -> _ToolCall:
        """Return the call a piece belongs to, which may be a new one.

        Some providers leave the index out, or send 0 for every call, and some say id
        and name again in each piece.  An id alone begins no call: some make up another
        for each piece.
        """
        call = self._current.get(index)
        if call is None and index is None and not name and self._calls:
            return self._calls[-1]
        if call is None or (
            call.name is not None and name and _is_another(call, id, name, arguments)
        ):
            call = _ToolCall(len(self._calls), id or None)
            self._calls.append(call)
            self._current[index] = call
        call.id = call.id or id
        return call


def _is_another(call: _ToolCall, id: str | None, name: str, arguments: str) -> bool:
    """Return whether a piece with a *name* begins another call than *call*."""
    if id and id != call.id:
        return True
    if not id and name != call.name:
        return True
    return arguments.startswith("{") and call.is_whole


def _refuse(document: dict[str, Any]) -> None:
    """Raise what an object without choices says, if it is an error.

    Raises:
        ErrorAnswer: If it is one, or an answer of Ollama's own API.

    """
    if document.get("object") == "error" or document.get("type") == "error":
        raise ErrorAnswer(document)
    if document.get("error_message"):
        said = {"type": document.get("error_type")}
        raise ErrorAnswer(said | {"message": document["error_message"]})
    if type(document.get("done")) is bool and "choices" not in document:
        said = {"code": OLLAMA_NATIVE}
        raise ErrorAnswer(said | {"message": "this is Ollama's own API, not /v1"})


def _innermost(error: Any) -> Any:
    while isinstance(error, dict) and error.get("error"):
        error = error["error"]
    return error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is due, and came {type(value).__name__}")
    return value


def _reasoning(message: dict[str, Any]) -> str:
    text = message.get("reasoning_content") or message.get("reasoning")
    if not text and isinstance(details := message.get("reasoning_details"), list):
        # Encrypted parts have none.
        found = [part.get("text") or part.get("summary") for part in details]
        text = "".join(words for words in found if isinstance(words, str))
    return text if isinstance(text, str) else ""


def _parts(parts: Iterable[Any], deltas: list[Delta]) -> None:
    for part in parts:
        if part.get("type") == "thinking":
            text = part["thinking"]
            if not isinstance(text, str):
                text = "".join(inner.get("text") or "" for inner in text)
            if text:
                deltas.append(ReasoningDelta(text))
        elif part.get("text"):
            deltas.append(TextDelta(_text(part["text"])))


def _usage(document: Any) -> Usage | None:
    prompt = _count(document, "prompt_tokens")
    completion = _count(document, "completion_tokens")
    # Some leave the model's thinking out of all but the total.
    completion = max(completion, _count(document, "total_tokens") - prompt)
    usage = Usage(
        prompt,
        completion,
        _count(document, "prompt_tokens_details", "cached_tokens"),
        _count(document, "completion_tokens_details", "reasoning_tokens"),
    )
    # Zeros are what servers send that do not count.
    return usage if usage.total_tokens else None


def _count(document: Any, *path: str) -> int:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document if type(document) is int and 0 < document < _MAX_COUNT else 0
