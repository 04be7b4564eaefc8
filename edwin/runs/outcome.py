"""How a run ended, as text that is kept for those who ask again; pure."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from edwin.errors import PastError, envelope
from edwin.types import (
    Event,
    Message,
    RefusalDelta,
    RunFailed,
    RunFinished,
    TextDelta,
    ToolCallDelta,
    Usage,
)


def write(end: RunFinished | RunFailed) -> str:
    """Return *end* as JSON text."""
    if isinstance(end, RunFailed):
        document = {"status": end.error.status, **envelope(end.error)}
    else:
        document = {
            "message": end.message,
            "finish_reason": end.finish_reason,
            "logprobs": end.logprobs,
        }
    return orjson.dumps(document).decode()


def read(text: str, usage: Usage) -> RunFinished | RunFailed:
    """Return the end that :func:`write` made *text* of."""
    document = orjson.loads(text)
    if "error" in document:
        return RunFailed(PastError(document["status"], document["error"]))
    return RunFinished(
        document["message"], document["finish_reason"], usage, document["logprobs"]
    )


def events(end: RunFinished | RunFailed) -> Sequence[Event]:
    """Return the fewest events that give the same answer, *end* the last of them."""
    if isinstance(end, RunFailed):
        return [end]
    return [*_deltas(end.message, end), end]


def _deltas(message: Message, end: RunFinished) -> list[Event]:
    found: list[Event] = []
    content = message.get("content")
    if isinstance(content, str) and content:
        found.append(TextDelta(content, end.logprobs))
    if refusal := message.get("refusal"):
        found.append(RefusalDelta(refusal))
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        found.append(
            ToolCallDelta(index, call["id"], function["name"], function["arguments"])
        )
    return found
