"""What a tool of the agent's own is, and what it is handed."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


class ToolFailed(Exception):
    """A tool could not do what it was asked for; its message goes to the model."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know of the call, and of the run it belongs to.

    Attributes:
        run_id: The run.
        agent: Id of the agent.
        session_key: The session's key, or a fresh one where there is no session.
        principal_id: Who asked.
        call_id: Id that the model gave the call.
        token: Of run and attempt: another attempt at the same run has another.
        cancelled: Is set when nobody waits for the result any more: the run was
            cancelled, or the call has taken too long.

    """

    run_id: str
    agent: str
    session_key: str
    principal_id: str
    call_id: str
    token: str
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that is ready to be called.

    Attributes:
        name: What the model calls it, ``[A-Za-z0-9_-]{1,64}``.
        description: What the model is told of it.
        parameters: JSON Schema of its arguments, an object.
        fault: Returns what is wrong with arguments, in words for the model; None:
            nothing.
        call: Makes the call and returns what the model reads.  It may raise anything;
            :class:`ToolFailed` is not logged.  Cancelling it ends it.
        idempotent: Whether a call does no harm when it is made twice.
        timeout_s: How long a call may take.

    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    fault: Callable[[Mapping[str, Any]], str | None]
    call: Callable[[Mapping[str, Any], ToolContext], Awaitable[str]]
    idempotent: bool = False
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How a server of tools is doing.

    Attributes:
        label: What it is called in the log and for admins; without secrets.
        state: ``ready``: its tools can be called.
        tools: How many tools it has; None: it has not said yet.
        restarts: How often it was started again.
        error: Why it is not ready, in one line; None: it is, or nothing went wrong.

    """

    label: str
    state: Literal["starting", "ready", "restarting", "stopped"]
    tools: int | None = None
    restarts: int = 0
    error: str | None = None


class Toolset(Protocol):
    """The tools of one agent."""

    async def tools(self) -> Sequence[Tool]:
        """Return them, each name once; waits for servers that are just starting.

        Raises:
            ToolsUnavailable: If a server has not said yet which tools it has.

        """
        ...
