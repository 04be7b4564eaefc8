"""The database behind the store: opened, used from the loop's thread, closed.

The base of ``store``'s Store.  Nothing blocks the loop: changes go to the writer's
thread, queries to a few readers.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from edwin.errors import StateError, StorageUnavailable
from edwin.metrics import Metrics
from edwin.store import changes, dialect, recovery, upgrade
from edwin.store.writer import Writer

READERS = 2

_T = TypeVar("_T")


class Database:
    """One database, its writer and its readers.

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

    async def backup(self, target: Path) -> None:
        """Copy the database, as it is now, to *target*, mode 0600.

        Needs no start, so that another process can do it while a gateway runs.  What
        is at *target* is replaced, when the copy is whole.  Cancelling the caller does
        not stop it.

        Raises:
            StateError: If the database cannot be read or the copy not written, or if
                the database is no SQLite's.

        """
        path = dialect.file_of(self._url)
        if path is None:
            raise StateError("the store is no file: back it up with pg_dump")
        # Not one of the readers, which are to read meanwhile.
        thread = ThreadPoolExecutor(1, "edwin-store-backup")
        try:
            await asyncio.get_running_loop().run_in_executor(
                thread, dialect.copy, path, target
            )
        except (sqlite3.Error, OSError) as error:
            raise StateError(f"the backup failed: {_reason(error)}") from error
        finally:
            thread.shutdown(wait=False)

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
