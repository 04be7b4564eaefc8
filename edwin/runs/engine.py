"""RunEngine: the seam between one process and a fleet."""

from __future__ import annotations

from typing import Protocol

from edwin.runs.run import Run
from edwin.types import RunRequest


class RunEngine(Protocol):
    """Where runs are queued, ordered and carried out."""

    @property
    def running(self) -> int:
        """How many runs are under way."""

    @property
    def waiting(self) -> int:
        """How many runs wait, for their session or for a place."""

    async def start(self) -> None:
        """Begin to take runs."""

    async def submit(self, request: RunRequest) -> Run:
        """Return the run that carries out *request*, waiting or under way.

        The run belongs to the engine; read it with :meth:`Run.events`, end it with
        :meth:`Run.cancel`.  Runs of one session are carried out one after another
        in the order of these calls.

        Raises:
            SessionQueueFull: If too many runs wait in the session.
            Overloaded: If too many runs wait in the engine.
            GatewayStopping: If it takes no runs any more.

        """
        ...

    async def drain(self, seconds: float) -> None:
        """Take no runs any more, and return when none is left.

        Those that are not done after *seconds* are ended.
        """
