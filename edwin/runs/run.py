"""One run as everybody sees it: its events, its readers, its end.

A run is a task of its own, apart from the connection that asked for it.  Engines
make runs and :mod:`edwin.runs.carry` carries them out; handlers read them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType

from edwin.errors import EdwinError, InternalError, RunCancelled
from edwin.types import (
    Event,
    RunFailed,
    RunFinished,
    RunRecord,
    RunRequest,
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

    Attributes:
        state: ``queued``, ``running``, ``finished``, ``cancelled`` or ``failed``.
        stopped: Why it was told to end before its time, or None.
        error: What it failed with, or None.
        end: Its last event, or None.
        pended: Whether its messages were made durable while it waited.
        begun: Done when its messages are durable, or when it ended without; None:
            it keeps none.
        sealed: Whether its end is decided, so that nothing can stop it any more.
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
        self.pended = False
        self.sealed = False
        self.begun: asyncio.Future[None] | None = None
        if request.stateful:
            self.begun = asyncio.get_running_loop().create_future()
        self.deadline = deadline
        self._accept = accept
        self._deliver = deliver
        self._stop = stop
        self._events: list[Event] = []
        self._dropped = 0
        self._readers: set[Reader] = set()

    @property
    def ended(self) -> bool:
        """Whether the last event is there."""
        return self.end is not None

    async def accepted(self) -> None:
        """Return when what the client sent is durable.

        Raises:
            StorageUnavailable: If it cannot be made so.

        """
        await self._accept(self)

    def delivered(self) -> None:
        """Note that the answer has reached its client, to the last byte."""
        self._deliver(self)

    def events(self, after: int = 0) -> Reader:
        """Return a reader of the events with a number above *after*, then live."""
        return Reader(self, after)

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
            self.end = event
            self.has_begun()
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
        )

    def joined(self, reader: Reader) -> None:
        """Count *reader* in; called by it."""
        self._readers.add(reader)

    def left(self, reader: Reader) -> None:
        """Count *reader* out; when it was the last, the run is cancelled at once."""
        self._readers.discard(reader)
        if not self._readers:
            self.cancel(RunCancelled("the client left"))


class Reader:
    """One reader's place in a run's events.

    Use as a context manager: while it is open the run knows that somebody reads.
    """

    def __init__(self, run: Run, after: int) -> None:
        self._run = run
        self._place = after
        self._waiter: asyncio.Future[None] | None = None
        self._until_end = False
        self.closed = False

    def __enter__(self) -> Reader:
        self._run.joined(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; a waiting :meth:`next` returns at once.  Idempotent."""
        if not self.closed:
            self.closed = True
            self._run.left(self)
            self.wake()

    def notify(self, *, ended: bool) -> None:
        """Wake the reader if it waits for this kind of news; called by the run."""
        if ended or not self._until_end:
            self.wake()

    def wake(self) -> None:
        """Let a waiting :meth:`next` return, with or without events."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> list[Event]:
        """Return the events that came since the last call, all of them at once.

        Waits until there is one, or until :meth:`wake` or :meth:`close`; then the
        list may be empty.

        Raises:
            InternalError: If the reader is too far behind the buffer.

        """
        events = self._run.since(self._place)
        if not events and not self.closed:
            await self._wait()
            events = self._run.since(self._place)
        self._place += len(events)
        return events

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events one by one, until the run's end or :meth:`close`."""
        while not self.closed:
            for event in await self.next():
                yield event
                if isinstance(event, _ENDS):
                    return

    async def result(self) -> RunFinished:
        """Return the run's whole answer.

        Raises:
            EdwinError: What the run failed with.
            RunCancelled: If the reader was closed first.

        """
        self._until_end = True
        while not self.closed:
            match self._run.end:
                case RunFinished() as end:
                    return end
                case RunFailed(error):
                    raise error
            await self._wait()
        raise RunCancelled("the client left")

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
