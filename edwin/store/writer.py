"""The thread that writes: all changes that wait when it wakes are one transaction.

Called by ``store``, on the loop's thread.  A commit is a wait for the disk, so what
comes in during one goes together into the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from edwin.errors import InternalError, StorageUnavailable
from edwin.store import changes, dialect
from edwin.store.changes import Change

LATER_S = 1.0
"""How long a change that nobody waits for may wait for company."""

MAX_LATER = 10_000
"""Changes nobody waits for that are kept while the store cannot be written."""

_log = logging.getLogger(__name__)

# What a database refuses, and what its driver does before the database sees it.
_REFUSALS = (SQLAlchemyError, TypeError, ValueError, OverflowError)


class _Job(NamedTuple):
    """A change, and the future of who waits for it.

    Attributes:
        keep: Whether to try again when the store could not be written.
        delivered: The run that the change marks as delivered, or None.

    """

    change: Change
    future: asyncio.Future[None] | None = None
    keep: bool = False
    delivered: str | None = None


_Outcomes: TypeAlias = Sequence[Exception | None]


class Writer:
    """Write changes, in the order they come in.

    To be made on the running loop, and used and stopped on it.

    Args:
        engine: Connects to the database.
        committed: Called by the thread with the seconds that each transaction took.

    Attributes:
        writable: False from a write that failed for reasons of the disk or a lock
            until one that succeeds; a probe is written every second meanwhile.
        undelivered: Runs whose mark of delivery is noted but not written.

    """

    def __init__(
        self, engine: Engine, *, committed: Callable[[float], object] = bool
    ) -> None:
        self.writable = True
        self.undelivered: set[str] = set()
        self._engine = engine
        self._committed = committed
        self._sql = changes.statements(engine.dialect)
        self._connection: Connection | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._group: list[_Job] = []
        self._later: list[_Job] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a process that dies without stop() must not hang on it, and
        # whatever was committed is safe.
        self._thread = threading.Thread(
            target=self._main, name="edwin-store-writer", daemon=True
        )
        self._thread.start()

    def submit(self, change: Change) -> asyncio.Future[None]:
        """Return a future that is done when *change* is durable.

        Cancelling the future does not take the change back.

        Raises:
            StorageUnavailable: After stop().  As the future's exception: the disk or
                a lock is in the way, and nothing was written.
            InternalError: As the future's exception: the database refuses the
                change, nothing of it was written.

        """
        if self._stopping or self._ended.done():
            raise StorageUnavailable("the store is stopped")
        if self._later and self.writable:
            self._flush()
        return self._put(change)

    def later(self, change: Change, *, delivered: str | None = None) -> None:
        """Write *change* with the next transaction, or within a second.

        While the store cannot be written it waits; the oldest of more than
        :data:`MAX_LATER` are lost then, which the log tells.
        """
        if self._stopping or self._ended.done():
            _log.warning("a ledger line came after the store's stop and is lost")
            return
        if delivered is not None:
            self.undelivered.add(delivered)
        self._later.append(_Job(change, None, True, delivered))
        self._arm()

    async def stop(self) -> None:
        """Write what waits, then close the connection.  Idempotent."""
        if not self._stopping:
            self._stopping = True
            if self._timer is not None:
                self._timer.cancel()
            # What is being written may fail and be left to try once more.
            self._put(()).add_done_callback(self._put_last)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _put(self, change: Change) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put(_Job(change, future))
        return future

    def _put_last(self, before: asyncio.Future[None]) -> None:
        before.exception()  # told to whom it concerns
        self._flush()
        self._jobs.put(None)

    def _arm(self) -> None:
        if self._timer is None and not self._stopping:
            self._timer = self._loop.call_later(LATER_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self.writable:
            self._drop_oldest()
            self._jobs.put(_Job(changes.value("probe", "")))
        self._flush()

    def _flush(self) -> None:
        for job in self._later:
            self._jobs.put(job)
        self._later.clear()

    def _drop_oldest(self) -> None:
        excess = len(self._later) - MAX_LATER
        if excess > 0:
            for job in self._later[:excess]:
                self.undelivered.discard(job.delivered or "")
            del self._later[:excess]
            _log.warning("%d ledger lines are lost: the store is unavailable", excess)

    def _resolve(self, jobs: Sequence[_Job], outcomes: _Outcomes) -> None:
        """Tell who waits; the loop's end of the writer's work."""
        again = []
        for job, error in zip(jobs, outcomes, strict=True):
            if error is None:
                if job.future is not None and not job.future.done():
                    job.future.set_result(None)
                elif job.delivered is not None:
                    self.undelivered.discard(job.delivered)
                continue
            reported = dialect.failure(error)
            reported.__cause__ = error
            if job.future is not None and not job.future.done():
                job.future.set_exception(reported)
            elif job.keep and isinstance(reported, StorageUnavailable):
                again.append(job)
            elif job.keep or job.future is not None:
                self.undelivered.discard(job.delivered or "")
                _log.warning("a change nobody waits for failed", exc_info=reported)
        self._later[:0] = again
        if self._later or not self.writable:
            self._arm()

    def _on_end(self) -> None:
        """Leave nobody waiting, whatever ended the thread."""
        jobs = self._group
        while not self._jobs.empty():
            job = self._jobs.get_nowait()
            if job is not None:
                jobs.append(job)
        for job in jobs:
            if job.future is not None and not job.future.done():
                job.future.set_exception(InternalError("the store's writer has ended"))
        if self._later:
            _log.warning("%d ledger lines are lost", len(self._later))
        self._ended.set_result(None)

    def _main(self) -> None:
        """Run the writer's thread; so does all that stands below."""
        try:
            while self._round():
                pass
        finally:
            try:
                self._close()
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._on_end)

    def _round(self) -> bool:
        """Write what waits, at least one change; False if it was the last."""
        jobs = [self._jobs.get()]
        while not self._jobs.empty():
            jobs.append(self._jobs.get_nowait())
        self._group = [job for job in jobs if job is not None]
        if self._group:
            outcomes = self._write([job.change for job in self._group])
            group, self._group = self._group, []
            self._loop.call_soon_threadsafe(self._resolve, group, outcomes)
        return None not in jobs

    def _write(self, group: Sequence[Change]) -> _Outcomes:
        outcomes = self._commit(group, apart=False)
        error = outcomes[0]
        if error is not None and len(group) > 1 and not _is_unavailable(error):
            # One of them is at fault: find out which.
            outcomes = self._commit(group, apart=True)
        return outcomes

    def _commit(self, group: Sequence[Change], *, apart: bool) -> _Outcomes:
        """Write *group* in one transaction; *apart*: each in a savepoint."""
        outcomes: list[Exception | None] = []
        begun_s = time.perf_counter()
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            with self._connection.begin():
                if apart:
                    for change in group:
                        outcomes.append(self._try(self._connection, change))
                else:
                    changes.apply(self._connection, self._sql, group)
        except _REFUSALS as error:
            # Whatever state it is in, a new one is in a better one.
            self._disconnect()
            if _is_unavailable(error):
                self.writable = False
            return [error] * len(group)
        self.writable = True
        self._committed(time.perf_counter() - begun_s)
        return outcomes or [None] * len(group)

    def _try(self, connection: Connection, change: Change) -> Exception | None:
        savepoint = connection.begin_nested()
        try:
            changes.apply(connection, self._sql, [change])
        except _REFUSALS as error:
            # A full disk ends the whole transaction, its savepoints with it.
            if _is_unavailable(error):
                raise
            savepoint.rollback()
            return error
        savepoint.commit()
        return None

    def _close(self) -> None:
        if self._connection is not None:
            dialect.checkpoint(self._connection)
            self._connection.close()
        self._engine.dispose()

    def _disconnect(self) -> None:
        """Give the connection up; the next transaction opens another."""
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.invalidate()
            self._connection.close()
            self._connection = None


def _is_unavailable(error: Exception) -> bool:
    return isinstance(dialect.failure(error), StorageUnavailable)
