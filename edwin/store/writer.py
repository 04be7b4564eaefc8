"""The thread that writes: all changes that wait when it wakes are one transaction.

Called by ``store``, on the loop's thread.  A commit is a wait for the disk, so what
comes in during one goes together into the next.  Work that has to read as it writes has
a transaction of its own, in its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

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

_T = TypeVar("_T")


class _Work(Generic[_T]):
    """What is called with the connection, and what came of it."""

    def __init__(self, call: Callable[[Connection], _T]) -> None:
        self.call = call
        self.result: _T | None = None


class _Job(NamedTuple):
    """A change, or work, and the future of who waits for it.

    Attributes:
        keep: Whether to try again when the store could not be written.
        settled: Called on the loop when the change is written, or lost for good.
        work: What is done instead of a change.

    """

    change: Change
    future: asyncio.Future[Any] | None = None
    keep: bool = False
    settled: Callable[[], object] | None = None
    work: _Work[Any] | None = None


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

    """

    def __init__(
        self, engine: Engine, *, committed: Callable[[float], object] = bool
    ) -> None:
        self.writable = True
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

    def call(self, work: Callable[[Connection], _T]) -> asyncio.Future[_T]:
        """Return a future that has what *work* returned, when that is durable.

        It is called on the writer's thread, in a transaction of its own, after all
        that was handed over before it and before all that is after it.

        Raises:
            StorageUnavailable: As for :meth:`submit`.
            InternalError: Likewise.

        """
        if self._stopping or self._ended.done():
            raise StorageUnavailable("the store is stopped")
        # Whatever becomes of them: what *work* finds must not come up again.
        self._flush()
        future: asyncio.Future[_T] = self._loop.create_future()
        self._jobs.put(_Job((), future, work=_Work(work)))
        return future

    def later(
        self, change: Change, *, settled: Callable[[], object] | None = None
    ) -> None:
        """Write *change* with the next transaction, or within a second.

        While the store cannot be written it waits; the oldest of more than
        :data:`MAX_LATER` are lost then, which the log tells.

        Args:
            change: What to write.
            settled: Called when it is written, or lost.

        """
        if self._stopping or self._ended.done():
            _log.warning("a ledger line came after the store's stop and is lost")
            _settle(settled)
            return
        self._later.append(_Job(change, None, True, settled))
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
                _settle(job.settled)
            del self._later[:excess]
            _log.warning("%d ledger lines are lost: the store is unavailable", excess)

    def _resolve(self, jobs: Sequence[_Job], outcomes: _Outcomes) -> None:
        """Tell who waits; the loop's end of the writer's work."""
        again = []
        for job, error in zip(jobs, outcomes, strict=True):
            if error is None:
                if job.future is not None and not job.future.done():
                    job.future.set_result(job.work and job.work.result)
                elif job.settled is not None:
                    job.settled()
                continue
            reported = dialect.failure(error)
            reported.__cause__ = error
            if job.future is not None and not job.future.done():
                job.future.set_exception(reported)
            elif job.keep and isinstance(reported, StorageUnavailable):
                again.append(job)
            elif job.keep or job.future is not None:
                _settle(job.settled)
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
        for job in (*jobs, *self._later):
            _settle(job.settled)
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
        taken = [self._jobs.get()]
        while not self._jobs.empty():
            taken.append(self._jobs.get_nowait())
        self._group = [job for job in taken if job is not None]
        if self._group:
            outcomes: list[Exception | None] = []
            for work, jobs in groupby(self._group, lambda job: job.work):
                if work is None:
                    outcomes += self._write([job.change for job in jobs])
                else:
                    outcomes.append(self._work(work))
            group, self._group = self._group, []
            self._loop.call_soon_threadsafe(self._resolve, group, outcomes)
        return None not in taken

    def _write(self, group: Sequence[Change]) -> _Outcomes:
        error = self._commit(
            lambda connection: changes.apply(connection, self._sql, group)
        )
        if error is None or len(group) == 1 or _is_unavailable(error):
            return [error] * len(group)
        # One of them is at fault: find out which.
        outcomes: list[Exception | None] = []
        error = self._commit(
            lambda connection: outcomes.extend(
                self._try(connection, change) for change in group
            )
        )
        return outcomes if error is None else [error] * len(group)

    def _work(self, work: _Work[Any]) -> Exception | None:
        def call(connection: Connection) -> None:
            work.result = work.call(connection)

        return self._commit(call)

    def _commit(self, write: Callable[[Connection], None]) -> Exception | None:
        """Call *write* in one transaction; return what was in its way."""
        begun_s = time.perf_counter()
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            with self._connection.begin():
                write(self._connection)
        except _REFUSALS as error:
            # Whatever state it is in, a new one is in a better one.
            self._disconnect()
            if _is_unavailable(error):
                self.writable = False
            return error
        self.writable = True
        self._committed(time.perf_counter() - begun_s)
        return None

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


def _settle(settled: Callable[[], object] | None) -> None:
    if settled is not None:
        settled()
