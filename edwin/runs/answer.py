"""What a run has produced so far; made and filled by :mod:`edwin.runs.carry`."""

from __future__ import annotations

import asyncio

from edwin.sessions import window
from edwin.tracing import RunTrace
from edwin.types import Message, RunFinished, TurnFinished, Usage


class Answer:
    """What a run has produced so far, and the task that keeps its messages.

    Attributes:
        trace: The run's span.
        messages: Of the turns that are finished.
        turn: The last of them, or None.
        parts: The text of the turn under way.
        begin: Makes the run's messages durable; None: not yet, or there are none.
        opened: Whether the line of a stateless run whose outcome is kept is durable.

    """

    def __init__(self, trace: RunTrace) -> None:
        self.trace = trace
        self.messages: list[Message] = []
        self.turn: TurnFinished | None = None
        self.parts: list[str] = []
        self.begin: asyncio.Task[None] | None = None
        self.opened = False

    @property
    def begun(self) -> bool:
        """Whether the run's messages are durable."""
        task = self.begin
        return task is not None and task.done() and task.exception() is None

    def finished_turn(self, turn: TurnFinished) -> None:
        """Keep the turn's message in place of its pieces."""
        assert turn.message is not None
        self.messages.append(turn.message)
        self.turn = turn
        self.parts.clear()

    def stored(self, *, whole: bool) -> list[Message]:
        """Return the messages to store.

        Of an answer that is not *whole*: its text, without calls that nobody can
        answer any more.
        """
        if whole:
            return self.messages
        messages = list(self.messages)
        if self.parts:
            messages.append({"role": "assistant", "content": "".join(self.parts)})
        return list(window.sendable(messages))

    def finished(self, usage: Usage) -> RunFinished:
        """Return the end of a run whose last turn this is."""
        turn = self.turn
        assert turn is not None and turn.message is not None
        return RunFinished(turn.message, turn.finish_reason, usage, turn.logprobs)
