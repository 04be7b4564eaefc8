"""What the executor may know of the run it works for, and what it asks of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edwin.types import ToolCall


async def _at_once() -> None:
    """Wait for nothing."""


async def _granted(call: ToolCall) -> str | None:
    """Let every call be made."""
    return None


@dataclass(frozen=True, slots=True)
class Scope:
    """The run an executor works for.

    Attributes:
        run_id: Its id.
        attempt: Which time it is carried out, from 1.
        session_key: Key of its session.
        principal_id: Who asked for it.
        begun: Returns when what was sent is durable; no tool starts before.
        effects: Returns when it is durable that the run has effects: from then on it
            is never carried out again.
        approve: Returns None when a call may be made, else why not, in words for the
            model; may take as long as the run.

    """

    run_id: str = ""
    attempt: int = 1
    session_key: str = ""
    principal_id: str = ""
    begun: Callable[[], Awaitable[None]] = _at_once
    effects: Callable[[], Awaitable[None]] = _at_once
    approve: Callable[[ToolCall], Awaitable[str | None]] = _granted

    @property
    def token(self) -> str:
        """Of run and attempt."""
        return f"{self.run_id}.{self.attempt}"
