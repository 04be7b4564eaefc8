"""What an agent's code may yield, and what it becomes; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edwin.agents.base import AgentEvent
from edwin.types import (
    Delta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)

_EVENTS = (
    *(TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta),
    *(ToolStarted, ToolFinished, TurnFinished),
)
_REASONS = ("stop", "length", "tool_calls", "content_filter")


def event_of(item: object) -> AgentEvent | None:
    """Return what *item* is to a run; None: nothing, for it is an empty text.

    Raises:
        TypeError: If it is neither text nor an event, or an event with something in it
            that does not belong there; its message says what is wrong.

    """
    if isinstance(item, str):
        _check_text(item)
        return TextDelta(item) if item else None
    if not isinstance(item, _EVENTS):
        raise TypeError(f"gave {_kind(item)}, which is neither text nor an event")
    if isinstance(item, TurnFinished):
        return _finished(item)
    for field in type(item).__dataclass_fields__:
        value = getattr(item, field)
        if field in ("index", "logprobs"):
            right = isinstance(value, int) if field == "index" else _logprobs(value)
        else:
            right = isinstance(value, str) or (
                value is None and field in _may_be_none(item)
            )
        if not right:
            raise TypeError(f"gave a {_kind(item)} with {_kind(value)} as {field}")
        if isinstance(value, str):
            _check_text(value)
    return item


def copied(value: Any) -> Any:
    """Return *value*, decoded JSON, in maps and lists of its own."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [copied(inner) for inner in value]
    if isinstance(value, Mapping):
        return {key: copied(inner) for key, inner in value.items()}
    return value


def _finished(turn: TurnFinished) -> TurnFinished:
    if turn.finish_reason not in _REASONS:
        raise TypeError(f"ended its turn with a reason that is none of {_REASONS}")
    if not isinstance(turn.usage, Usage | None):
        raise TypeError(f"ended its turn with {_kind(turn.usage)} as usage")
    return TurnFinished(turn.finish_reason, turn.usage)


def _may_be_none(item: Delta | ToolStarted | ToolFinished) -> tuple[str, ...]:
    if isinstance(item, ToolCallDelta):
        return ("id", "name")
    return ("error",) if isinstance(item, ToolFinished) else ()


def _logprobs(value: object) -> bool:
    return value is None or isinstance(value, Mapping)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TypeError("gave text with half a character in it") from None


def _kind(value: object) -> str:
    return type(value).__name__
