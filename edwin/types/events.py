"""What a run yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from edwin.errors import EdwinError
from edwin.types.messages import Message, Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer's text; *logprobs* as the provider sent them."""

    text: str
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the text with which the model declines."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's reasoning; never part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; *id* and *name* come with its first piece."""

    index: int
    id: str | None
    name: str | None
    arguments: str


Delta: TypeAlias = TextDelta | RefusalDelta | ReasoningDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """One provider call came to its end; *usage* is None where it gave none.

    What a provider's stream ends with.  The executor passes it on as an event with
    the whole assistant *message* and a usage, estimated if need be.  One that does not
    *count* cost what it says, but its message is no part of the answer.
    """

    finish_reason: str
    usage: Usage | None = None
    message: Message | None = None
    logprobs: Mapping[str, Any] | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class RunQueued:
    """The run waits; *position* runs of its session are before it."""

    position: int


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run reached the head of its lane."""


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool of the agent's own was called; *arguments* as the model wrote them."""

    call_id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool of the agent's own came back.

    Attributes:
        call_id: Id of the call, as in its :class:`ToolStarted`.
        name: What the model calls the tool.
        error: Why it failed, in one line; None where it did not.
        result: What the model reads of it, a failure too.

    """

    call_id: str
    name: str
    error: str | None = None
    result: str = ""


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run's answer is complete and, where it is kept, durable."""

    message: Message
    finish_reason: str
    usage: Usage
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The run ended without a complete answer."""

    error: EdwinError


Event: TypeAlias = (
    RunQueued
    | RunStarted
    | Delta
    | ToolStarted
    | ToolFinished
    | TurnFinished
    | RunFinished
    | RunFailed
)
