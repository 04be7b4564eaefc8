"""What happens in a run of Pydantic AI, as events of Edwin."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)

from edwin.agents.base import AgentEvent
from edwin.types import ReasoningDelta, TextDelta, ToolFinished, ToolStarted


class Reader:
    """Reads the events of one run.

    Args:
        clients: Names of the client's tools, which the run's end tells of.
        holds: Whether the model's text is not the answer yet.

    """

    def __init__(self, clients: Container[str], *, holds: bool) -> None:
        self.holds = holds
        self._clients = clients
        self._written = False
        self._lead = ""

    def turn(self) -> None:
        """Begin another turn: what it writes is a paragraph of its own."""
        self._lead = "\n\n" if self._written else ""

    def events(self, event: Any) -> Iterator[AgentEvent]:
        """Yield what *event* is to the run's readers."""
        if isinstance(event, PartStartEvent):
            if isinstance(event.part, TextPart):
                yield from self._text(event.part.content)
            elif isinstance(event.part, ThinkingPart) and event.part.content:
                yield ReasoningDelta(event.part.content)
        elif isinstance(event, PartDeltaEvent):
            delta = event.delta
            if isinstance(delta, TextPartDelta):
                yield from self._text(delta.content_delta)
            elif isinstance(delta, ThinkingPartDelta) and delta.content_delta:
                yield ReasoningDelta(delta.content_delta)
        elif isinstance(event, FunctionToolCallEvent):
            call = event.part
            if call.tool_name not in self._clients:
                arguments = call.args_as_json_str()
                yield ToolStarted(call.tool_call_id, call.tool_name, arguments)
        elif isinstance(event, FunctionToolResultEvent):
            yield from self._result(event)

    def _text(self, text: str) -> Iterator[TextDelta]:
        if text and not self.holds:
            yield TextDelta(self._lead + text)
            self._written, self._lead = True, ""

    def _result(self, event: FunctionToolResultEvent) -> Iterator[ToolFinished]:
        part = event.part
        if part.tool_name in self._clients:
            return
        result = part.model_response_str()
        error = None
        if part.outcome != "success":
            error = part.model_response_str(wrap_if_error=False).split("\n")[0]
        yield ToolFinished(part.tool_call_id, part.tool_name, error, result)
