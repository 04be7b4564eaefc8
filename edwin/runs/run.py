"""One run as everybody sees it: its events, who reads them, its end.

A run is a task of its own, apart from the connection that asked for it.  Engines
make runs and :mod:`edwin.runs.carry` carries them out; handlers read them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from edwin.errors import EdwinError, InternalError, RunCancelled
from edwin.runs.reader import Reader
from edwin.types import (
    Event,
    RunFailed,
    RunFinished,
    RunRecord,
    RunRequest,
    SessionId,
    Usage,
)

MAX_EVENTS = 65_536

_ENDS = (RunFinished, RunFailed)


class Run:
    """One execution for one request.

    Args:
        request: What is to be done.
        deadline: Loop time at which the run is ended.
        accept: Makes the request's messages durable; called before the first byte of
            an answer goes out.
        deliver: Called with the run when its answer has reached its client.
        stop: Called with the run when somebody ends it before its time.
        linger_s: Seconds for which it goes on after its last reader left.

    Attributes:
        state: ``queued``, ``running``, ``finished``, ``cancelled`` or ``failed``.
        stopped: Why it was told to end before its time, or None.
        error: What it failed with, or None.
        end: Its last event, or None.
        pending: Makes its messages durable while it waits, or None.
        begun: Done when its messages are durable, or when it ended without; None:
            it keeps none.
        sealed: Whether its end is decided, so that nothing can stop it any more.
        released: Whether its idempotency key is free again: it was refused.
        effects: Whether it has begun something that must not be done twice.
        tool_calls: How many calls of its agent's own tools have come back.
        created_at: Unix seconds; *started_at* and *finished_at* likewise, or None.

    """

    def __init__(
        self,
        request: RunRequest,
        *,
        deadline: float,
        accept: Callable[[Run], Awaitable[None]],
        deliver: Callable[[Run], None],
        stop: Callable[[Run], None],
        linger_s: float = 0.0,
    ) -> None:
        self.request = request
        self.id = request.run_id
        self.state = "queued"
        self.stopped: EdwinError | None = None
        self.error: EdwinError | None = None
        self.finish_reason: str | None = None
        self.usage = Usage()
        self.end: RunFinished | RunFailed | None = None
        self.created_at = time.time()
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.first_delta_ms: int | None = None
        self.pending: asyncio.Task[None] | None = None
        self.sealed = False
        self.released = False
        self.effects = False
        self.tool_calls = 0
        self.begun: asyncio.Future[None] | None = None
        if request.stateful or request.kept:
            self.begun = asyncio.get_running_loop().create_future()
        self.deadline = deadline
        self._accept = accept
        self._deliver = deliver
        self._stop = stop
        self._events: list[Event] = []
        self._dropped = 0
        self._readers: set[Reader] = set()
        self._holders = 0
        self._linger_s = linger_s
        self._lingering: asyncio.TimerHandle | None = None
        self._at_end: list[Callable[[Run], None]] = []

    @classmethod
    def past(
        cls, request: RunRequest, record: RunRecord, events: Sequence[Event]
    ) -> Run:
        """Return a run of which only its *record* and its last *events* are left."""
        run = cls(request, deadline=0, accept=_nothing, deliver=_ignore, stop=_ignore)
        run.state = record.state
        run.finish_reason, run.usage = record.finish_reason, record.usage
        run.created_at, run.started_at = record.created_at, record.started_at
        run.finished_at = record.finished_at
        run.first_delta_ms = record.first_delta_ms
        run.sealed, run.effects = True, record.effects
        run.tool_calls = record.tool_calls
        for event in events:
            run.emit(event)
        if isinstance(run.end, RunFailed):
            run.error = run.end.error
        return run

    @property
    def session(self) -> SessionId:
        """Whose lane it is in, if its request is stateful."""
        return self.request.session

    @property
    def ended(self) -> bool:
        """Whether the last event is there."""
        return self.end is not None

    @property
    def waits(self) -> bool:
        """Whether it has not ended; an ended one may stay in its lane."""
        return self.end is None

    @property
    def pended(self) -> bool:
        """Whether its messages were to be made durable while it waited."""
        return self.pending is not None

    @property
    def first(self) -> int:
        """The number of the oldest event that is still in the buffer."""
        return self._dropped + 1

    @property
    def last(self) -> int:
        """The number of the newest event; 0: there is none."""
        return self._dropped + len(self._events)

    async def wait(self) -> None:
        """Return when the run has ended."""
        if self.end is None:
            waiter = asyncio.get_running_loop().create_future()
            self._at_end.append(partial(_wake, waiter))
            await waiter

    def at_end(self, call: Callable[[Run], None]) -> None:
        """Let *call* be called with the run when it ends; at once if it has."""
        if self.end is None:
            self._at_end.append(call)
        else:
            call(self)

    async def accepted(self) -> None:
        """Return when what the client sent is durable.

        Raises:
            StorageUnavailable: If it cannot be made so.

        """
        await self._accept(self)

    def delivered(self) -> None:
        """Note that the answer has reached its client, to the last byte."""
        self._deliver(self)

    def events(
        self, after: int = 0, *, holds: bool = True, skips: bool = False
    ) -> Reader:
        """Return a reader of the events with a number above *after*, then live.

        Args:
            after: 0: all there are.
            holds: Whether the run goes on for this reader's sake.
            skips: Whether it can do without events that have left the buffer.

        """
        return Reader(self, after, holds=holds, skips=skips)

    def detach(self) -> None:
        """Let the run go on to its end, whether anybody reads it or not."""
        self._linger_s = math.inf
        self._stop_lingering()

    def cancel(self, reason: EdwinError | None = None) -> None:
        """End the run before its time; without effect on one that has ended.

        A waiting run never starts; a running one closes its provider's connection
        at once, keeps the text it has, and ends with *reason*.

        Args:
            reason: What readers that stay are told; default :class:`RunCancelled`.

        """
        if self.stopped is None and not self.sealed:
            self.stopped = reason or RunCancelled("the run was cancelled")
            self._stop(self)

    def emit(self, event: Event) -> None:
        """Append *event* and wake the readers; only who carries the run calls this."""
        self._events.append(event)
        ended = False
        if isinstance(event, _ENDS):
            ended = True
            self._end_with(event)
        elif len(self._events) > MAX_EVENTS:
            half = MAX_EVENTS // 2
            del self._events[:half]
            self._dropped += half
        for reader in self._readers:
            reader.notify(ended=ended)

    def has_begun(self) -> None:
        """Note that its messages are durable; only who carries the run calls this."""
        if self.begun is not None and not self.begun.done():
            self.begun.set_result(None)

    def since(self, number: int) -> list[Event]:
        """Return the events with a number above *number*.

        Raises:
            InternalError: If some of them are no longer in the buffer.

        """
        if number < self._dropped:
            raise InternalError(
                f"the reader fell more than {MAX_EVENTS // 2} events behind",
                code="reader_too_slow",
            )
        return self._events[number - self._dropped :]

    def record(self) -> RunRecord:
        """Return the run's ledger line as of now."""
        return RunRecord(
            run_id=self.id,
            request_id=self.request.request_id,
            session=self.request.session,
            state=self.state,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            first_delta_ms=self.first_delta_ms,
            finish_reason=self.finish_reason,
            error_code=self.error.code if self.error else None,
            usage=self.usage,
            # Its end is yet to come when it is decided, and is written with the rest.
            events=self.last + (self.sealed and self.end is None),
            effects=self.effects,
            tool_calls=self.tool_calls,
        )

    def joined(self, reader: Reader) -> None:
        """Count *reader* in; called by it."""
        self._readers.add(reader)
        if reader.holds:
            self._holders += 1
            self._stop_lingering()

    def left(self, reader: Reader) -> None:
        """Count *reader* out; called by it.

        When it was the last that holds the run, the run is cancelled at once, or when
        it has lingered.
        """
        self._readers.discard(reader)
        self._holders -= reader.holds
        if self._holders or not reader.holds or self.end is not None:
            return
        if not self._linger_s:
            self._abandon()
        elif self._linger_s < math.inf:
            self._lingering = asyncio.get_running_loop().call_later(
                self._linger_s, self._abandon
            )

    def _abandon(self) -> None:
        self.cancel(RunCancelled("the client left"))

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _end_with(self, event: RunFinished | RunFailed) -> None:
        self.end = event
        self.has_begun()
        self._stop_lingering()
        for call in self._at_end:
            call(self)


async def _nothing(run: Run) -> None:
    """Make nothing durable: it is."""


def _ignore(run: Run) -> None:
    """Do nothing: it has ended."""


def _wake(waiter: asyncio.Future[None], run: Run) -> None:
    """Let who waits for the end of *run* go on."""
    if not waiter.done():
        waiter.set_result(None)
