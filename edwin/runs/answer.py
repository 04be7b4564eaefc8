"""What a run has produced so far; made and filled by :mod:`edwin.runs.carry`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from edwin.sessions import window
from edwin.sessions.canonical import call_ids, text_of
from edwin.tracing import RunTrace
from edwin.types import (
    Message,
    RunFinished,
    ToolCall,
    ToolFinished,
    TurnFinished,
    Usage,
)


class Answer:
    """What a run has produced so far, and the task that keeps its messages.

    Attributes:
        trace: The run's span.
        messages: Of the turns that are finished, the results of the agent's own tools
            that came before the last of them among these.
        turn: The last of them, or None.
        parts: The text of the turn under way.
        begin: Makes the run's messages durable; None: not yet, or there are none.
        marked: Makes it durable that the run has effects; None: it has none.
        opened: Whether the line of a stateless run is durable.

    """

    def __init__(self, trace: RunTrace) -> None:
        self.trace = trace
        self.messages: list[Message] = []
        self.turn: TurnFinished | None = None
        self.parts: list[str] = []
        self.begin: asyncio.Task[None] | None = None
        self.marked: asyncio.Task[None] | None = None
        self.opened = False
        self._calls: Sequence[ToolCall] = ()
        self._results: dict[str, Message] = {}
        self._logprobs: dict[str, list[Any]] = {}

    @property
    def begun(self) -> bool:
        """Whether the run's messages are durable."""
        task = self.begin
        return task is not None and task.done() and task.exception() is None

    def finished_turn(self, turn: TurnFinished) -> None:
        """Keep the turn's message in place of its pieces."""
        self.parts.clear()
        if not turn.counts:
            return
        assert turn.message is not None
        self._settle()
        self.messages.append(turn.message)
        self.turn = turn
        self._calls = turn.message.get("tool_calls") or ()
        for name, value in (turn.logprobs or {}).items():
            self._logprobs.setdefault(name, []).extend(value or ())

    def finished_tool(self, tool: ToolFinished) -> None:
        """Keep what a tool of the agent's own gave back, if the last turn called it."""
        if any(call["id"] == tool.call_id for call in self._calls):
            self._results[tool.call_id] = {
                "role": "tool",
                "tool_call_id": tool.call_id,
                "content": tool.result,
            }

    def stored(self, *, whole: bool) -> list[Message]:
        """Return the messages to store.

        Of an answer that is not *whole*: its text, without calls that nobody can
        answer any more.
        """
        self._settle()
        if whole:
            return self.messages
        messages = list(self.messages)
        if self.parts:
            messages.append({"role": "assistant", "content": "".join(self.parts)})
        return list(window.sendable(messages))

    def finished(self, usage: Usage) -> RunFinished:
        """Return the end of a run whose last turn this is, as the client sees it.

        The texts of all turns are one answer, and what the agent's own tools did is no
        part of it.
        """
        turn = self.turn
        assert turn is not None and turn.message is not None
        self._settle()
        if len(self.messages) == 1:
            return RunFinished(turn.message, turn.finish_reason, usage, turn.logprobs)
        return RunFinished(
            *self._folded(turn.message, turn.finish_reason),
            usage,
            self._logprobs or None,
        )

    def _settle(self) -> None:
        """Put the results of the last turn's calls behind it, in the calls' order."""
        if self._results:
            for call in self._calls:
                if call["id"] in self._results:
                    self.messages.append(self._results[call["id"]])
            self._results = {}

    def _folded(self, last: Message, reason: str) -> tuple[Message, str]:
        said = [m for m in self.messages if m["role"] == "assistant"]
        place = max(i for i, m in enumerate(self.messages) if m is last)
        done = {m["tool_call_id"] for m in self.messages[place + 1 :]}
        message: Message = {"role": "assistant", "content": "".join(map(text_of, said))}
        if refusal := last.get("refusal"):
            message["refusal"] = refusal
        left = [call for call in last.get("tool_calls") or () if call["id"] not in done]
        if left:
            message["tool_calls"] = left
        elif call_ids([last]):
            # Its own tools have answered, and there was no room for what follows.
            reason = "length"
        if left or refusal:
            message["content"] = message["content"] or None
        return message, reason
