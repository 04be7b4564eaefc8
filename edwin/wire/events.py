"""A run's events as documents, the same on the page and on the socket; pure."""

from __future__ import annotations

from typing import Any

from edwin.errors import envelope
from edwin.types import (
    Event,
    ReasoningDelta,
    RefusalDelta,
    RunFailed,
    RunFinished,
    RunQueued,
    RunStarted,
    TextDelta,
    ToolCallDelta,
    ToolFinished,
    ToolStarted,
    TurnFinished,
)
from edwin.wire.openai import usage_object
from edwin.wire.sse import event as sse_event


def document(event: Event, *, run_id: str, number: int) -> dict[str, Any]:
    """Return what a client is told of *event*: schema ``runs/event``.

    Args:
        event: What happened.  A ``RunFinished`` whose message is empty stands for an
            answer that is no longer kept.
        run_id: The run it happened in.
        number: Its place among the run's events, from 1.

    """
    name, payload = _told(event)
    return _document(name, run_id, number, payload)


def gap(*, run_id: str, after: int, upto: int) -> dict[str, Any]:
    """Return what stands for events that can no longer be given.

    Args:
        run_id: The run they happened in.
        after: Number of the last event before them.
        upto: Number of the last of them; the document has it too, so that who goes on
            from here goes on behind them.

    """
    return _document("events.gap", run_id, upto, {"after": after, "upto": upto})


def line(document: dict[str, Any]) -> bytes:
    """Return *document* as a server-sent event whose id is its number."""
    return b"id: %d\n" % document["seq"] + sse_event(document)


def _document(
    name: str, run_id: str, number: int, payload: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "event",
        "event": name,
        "run": run_id,
        "seq": number,
        "payload": payload,
    }


def _told(event: Event) -> tuple[str, dict[str, Any]]:
    """Return the name and the payload of *event*; the most frequent ones first."""
    match event:
        case TextDelta(text):
            return "text.delta", {"text": text}
        case ReasoningDelta(text):
            return "reasoning.delta", {"text": text}
        case ToolCallDelta(index, id, name, arguments):
            return "tool_call.delta", {
                "index": index,
                "id": id,
                "name": name,
                "arguments": arguments,
            }
        case RefusalDelta(text):
            return "refusal.delta", {"text": text}
        case RunQueued(position):
            return "run.queued", {"position": position}
        case RunStarted():
            return "run.started", {}
        case ToolStarted(call_id, name, arguments):
            return "tool.started", {
                "call_id": call_id,
                "name": name,
                "arguments": arguments,
            }
        case ToolFinished(call_id, name, error, result):
            return "tool.finished", {
                "call_id": call_id,
                "name": name,
                "error": error,
                "result": result,
            }
        case TurnFinished(reason, usage):
            counts = None if usage is None else usage_object(usage)
            return "turn.finished", {"finish_reason": reason, "usage": counts}
        case RunFinished(message, reason, usage):
            return "run.finished", {
                "message": message or None,
                "finish_reason": reason,
                "usage": usage_object(usage),
            }
        case RunFailed(error):
            return "run.failed", envelope(error)
