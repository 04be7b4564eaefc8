"""What an agent in Python is, and what it is handed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from edwin.types import Delta, Message, ToolFinished, ToolStarted, TurnFinished

AgentEvent: TypeAlias = Delta | ToolStarted | ToolFinished | TurnFinished


@dataclass(frozen=True, slots=True)
class AgentContext:
    """What an agent in Python may know of the run it answers in.

    Attributes:
        run_id: The run.
        agent: Id of the agent.
        session_key: The session's key, or a fresh one where there is no session.
        principal_id: Who asked.
        token: Of run and attempt: another attempt at the same run has another.
        instructions: The agent's, from the configuration.
        params: Fields of the request, by OpenAI's names, over the agent's own.
        deadline: Time of the loop's clock at which the run is ended.
        cancelled: Is set when nobody waits for the answer any more; for code that
            runs in a thread.

    """

    run_id: str
    agent: str
    session_key: str
    principal_id: str
    token: str
    instructions: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    deadline: float = 0.0
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds_left(self) -> float:
        """How long the run may still take; only on the loop."""
        return self.deadline - asyncio.get_running_loop().time()


class PythonAgent(Protocol):
    """An agent that is Python code, ready to answer."""

    def answer(
        self, messages: Sequence[Message], context: AgentContext
    ) -> AsyncGenerator[AgentEvent, None]:
        """Yield the answer to *messages*, the instructions not among them.

        Ends with a :class:`TurnFinished` whose usage is None where none is known.
        Closing the generator, or cancelling who iterates it, ends the work at once,
        as far as the code lets itself be ended.

        Raises:
            EdwinError: As the code raised it.
            AgentFailed: If it raised anything else, which is logged.

        """
        ...
