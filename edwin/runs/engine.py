"""RunEngine: the seam between one process and a fleet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, TypeVar

from edwin.config import RunsConfig
from edwin.errors import EdwinError
from edwin.runs.run import Run
from edwin.types import RunRequest, SessionId

_T = TypeVar("_T")


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
        in the order of these calls.  A request with an idempotency key gets the run
        that has the key, whether it is under way or ended long ago; it is another
        request's run then.

        Raises:
            SessionQueueFull: If too many runs wait in the session.
            Overloaded: If too many runs wait in the engine.
            StorageUnavailable: If the run could not be kept.
            IdempotencyKeyReused: If the key was used with another request.
            GatewayStopping: If it takes no runs any more.

        """
        ...

    def find(self, run_id: str) -> Run | None:
        """Return the run with this id, if it is live or was so a short while ago.

        Of those that have ended it knows the ones whose outcome is kept.
        """

    def live(self) -> Collection[Run]:
        """Return the runs that wait or are under way."""
        ...

    async def exclusively(
        self,
        session: SessionId,
        work: Callable[[], Awaitable[_T]],
        *,
        cancel: EdwinError | None = None,
    ) -> _T:
        """Do *work* in *session*'s lane, in its turn, and return what it returns.

        No run of the session is under way meanwhile.  Cancelling the caller gives the
        turn up.

        Args:
            session: Whose lane it is.
            work: Called when all that were before it are done.
            cancel: What those that are before it are cancelled with; None: they go on.

        Raises:
            SessionQueueFull: If too much waits in the session.
            GatewayStopping: If nothing is begun any more.

        """
        ...

    def forget(self, session: SessionId) -> None:
        """Keep nothing in memory of *session*'s runs that have ended."""
        ...

    def limit(self, limits: RunsConfig) -> None:
        """Go by other *limits* from now on; deadlines stay as they are."""
        ...

    async def drain(self, seconds: float) -> None:
        """Take no runs any more, and return when none is left.

        Those that are not done after *seconds* are ended.
        """
