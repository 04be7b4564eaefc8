"""The front door of the store: what is kept of sessions and runs.

Made by the gateway and handed to the session registry and the run engine.  All
methods are called on the loop's thread and none blocks it: changes go to the writer's
thread, queries to a few readers.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from edwin.errors import StateError, StorageUnavailable
from edwin.metrics import Metrics
from edwin.store import changes, dialect, queries, recovery, upgrade
from edwin.store.writer import Writer
from edwin.types import Entry, Message, RunRecord, SessionId, Transcript

READERS = 2

_T = TypeVar("_T")


class Store:
    """Sessions, their messages and the ledger of runs, in one database.

    Args:
        url: ``sqlite:////absolute/path/edwin.db``, or another SQLAlchemy URL.
            SQLite waits 5 s for another process's lock, or ``?timeout=`` seconds.
        metrics: Counts the transactions.

    """

    def __init__(self, url: str, metrics: Metrics | None = None) -> None:
        self._url = make_url(url)
        self._metrics = metrics or Metrics()
        self._writer: Writer | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reader_engine: Engine | None = None

    @property
    def writable(self) -> bool:
        """False from a write that the disk or a lock prevented until one succeeds."""
        return self._writer is not None and self._writer.writable

    async def start(self, secret_digests: Sequence[str]) -> None:
        """Open the database: make it, or migrate it, and end what a crash left open.

        Runs that were queued or running are failed now, ``gateway_restarted``.

        Args:
            secret_digests: Hex digests of the session secrets, at least one.  A new
                store keeps the first; an older one must be of any of them.

        Raises:
            StateError: If the store cannot be opened, was made with another secret,
                or by a newer Edwin.

        """
        loop = asyncio.get_running_loop()
        with ExitStack() as undo:
            readers = ThreadPoolExecutor(READERS, "edwin-store-reader")
            undo.callback(readers.shutdown)
            engine = dialect.writer_engine(self._url)
            undo.callback(engine.dispose)
            await loop.run_in_executor(
                readers, self._open, engine, tuple(secret_digests)
            )
            undo.pop_all()
        self._readers = readers
        self._reader_engine = dialect.reader_engine(self._url, READERS)
        self._writer = Writer(engine, committed=self._metrics.store_commit.observe)

    async def stop(self) -> None:
        """Write what waits, then close the database.  Idempotent."""
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.shutdown()
        if self._reader_engine is not None:
            self._reader_engine.dispose()
        # Last, because the last connection to close folds the log into the database.
        if self._writer is not None:
            await self._writer.stop()

    async def transcript(self, session: SessionId) -> Transcript:
        """Return what is kept of *session*: an empty transcript if nothing is.

        To be called while no run of the session is under way.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        noted = set(self._running().undelivered)
        found = await self._read(lambda c: queries.transcript(c, session))
        if found.entries and found.entries[-1].run_id in noted:
            return replace(found, last_delivered=True)
        return found

    async def runs(
        self, session: SessionId | None = None, limit: int = 100
    ) -> list[RunRecord]:
        """Return the ledger's newest *limit* lines, of *session* or of all.

        A line that was only noted appears within a second.

        Raises:
            StorageUnavailable: If the database cannot be read.

        """
        return await self._read(lambda c: queries.ledger(c, session, limit))

    async def begin(
        self,
        record: RunRecord,
        append: Sequence[Entry],
        supersede: Sequence[int] = (),
    ) -> None:
        """Write that a run of a session starts; durable on return.

        One transaction: the run's line, the session's last use, *append*, the marks
        on the messages *supersede*, and the end of the run's pending messages.
        Cancelling the caller does not take it back.

        Args:
            append: Messages with the places the caller chose for them.
            supersede: Places of messages that leave the transcript for good.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.
            InternalError: If a place is taken.  Nothing is written in either case.

        """
        await self._running().submit(changes.begin(record, append, supersede))

    async def finish(self, record: RunRecord, append: Sequence[Entry] = ()) -> None:
        """Write that a run ended, with its answer in *append*; durable on return.

        One transaction.  A run that never began gets its line here; its pending
        messages wait for the next start, which puts them outside the transcript.
        Cancelling the caller does not take it back.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.
            InternalError: If a place is taken.  Nothing is written in either case.

        """
        await self._running().submit(changes.finish(record, append))

    async def pend(self, record: RunRecord, messages: Sequence[Message]) -> None:
        """Keep the *messages* of a run that waits in its lane; durable on return.

        Cancelling the caller does not take it back.

        Raises:
            StorageUnavailable: If the disk or a lock is in the way.
            InternalError: If the run has pending messages already.

        """
        await self._running().submit(changes.pend(record, messages))

    def note(self, record: RunRecord) -> None:
        """Write the ledger line of a stateless run, within a second."""
        self._running().later(changes.note(record))

    def note_delivered(self, run_id: str) -> None:
        """Write that the run's answer reached its client, within a second."""
        self._running().later(changes.deliver(run_id), delivered=run_id)

    def _running(self) -> Writer:
        if self._writer is None:
            raise StorageUnavailable("the store is not started")
        return self._writer

    def _open(self, engine: Engine, secret_digests: Sequence[str]) -> None:
        """Leave the database ready for use; on a thread."""
        try:
            dialect.make_file(self._url)
            with engine.connect() as connection:
                recovery.check_secret(connection, secret_digests)
            upgrade.bring_up_to_date(engine, self._url)
            with engine.begin() as connection:
                changes.apply(
                    connection,
                    changes.statements(engine.dialect),
                    [
                        recovery.secret_change(connection, secret_digests[0]),
                        *recovery.restart_changes(connection, time.time()),
                    ],
                )
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise StateError(f"the store cannot be opened: {_reason(error)}") from error

    async def _read(self, query: Callable[[Connection], _T]) -> _T:
        if self._readers is None:
            raise StorageUnavailable("the store is not started")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._query, query)

    def _query(self, query: Callable[[Connection], _T]) -> _T:
        assert self._reader_engine is not None
        try:
            with self._reader_engine.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise dialect.failure(error) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)
