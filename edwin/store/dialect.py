"""What differs between SQLite and PostgreSQL; all else of the store is common SQL.

Called by ``store``, ``writer``, ``queries`` and ``upgrade``.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from edwin.errors import EdwinError, InternalError, StorageUnavailable

BUSY_TIMEOUT_S = 5.0
RETRY_AFTER_S = 5.0

# Primary result codes that tell of the disk or of another process, not of a defect.
_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def file_of(url: URL) -> Path | None:
    """Return the path of an SQLite database, None for a database server."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database)


def make_file(url: URL) -> None:
    """Make an SQLite database's file, empty, readable by its owner alone.

    SQLite would make it after the umask; its ``-wal`` and ``-shm`` take its mode over.
    """
    path = file_of(url)
    if path is not None:
        with suppress(FileExistsError):
            _make_private(path)


def writer_engine(url: URL) -> Engine:
    """Return an engine of one connection whose transactions hold the write lock.

    Its statements take their parameters by position.
    """
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url,
            paramstyle="format",
            pool_size=1,
            max_overflow=0,
            hide_parameters=True,
        )
    engine = _sqlite(url, 1, "journal_mode = WAL", "synchronous = FULL")
    # The driver begins nothing by itself (``isolation_level`` None), so that a lock
    # held by another process is met here and not in the middle of a transaction.
    event.listen(
        engine,
        "begin",
        lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"),
    )
    return engine


def reader_engine(url: URL, size: int) -> Engine:
    """Return an engine of *size* connections that read, each statement by itself."""
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=size,
            max_overflow=0,
            hide_parameters=True,
        )
    return _sqlite(url, size, "query_only = ON")


def insert(dialect: str, table: Table) -> Any:
    """Return the dialect's own INSERT: ``on_conflict_do_update`` is no common SQL."""
    return importlib.import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


def failure(error: Exception) -> EdwinError:
    """Return what Edwin raises for an *error* of the database or its driver."""
    if isinstance(error, DBAPIError) and _is_unavailable(error):
        return StorageUnavailable(
            "the store cannot be used at the moment; try again in a few seconds",
            retry_after_s=RETRY_AFTER_S,
        )
    return InternalError("the store refused a change or a query")


def checkpoint(connection: Connection) -> None:
    """Move what is in the write-ahead log into the database's file."""
    if connection.dialect.name == "sqlite":
        with suppress(sqlite3.Error):
            _outside_transaction(connection, "PRAGMA wal_checkpoint(TRUNCATE)")


def allow_rebuilds(connection: Connection) -> None:
    """Let a migration replace tables that others refer to; before it begins."""
    if connection.dialect.name == "sqlite":
        _outside_transaction(connection, "PRAGMA foreign_keys = OFF")


def copy_before(url: URL, revision: str) -> None:
    """Copy an SQLite database to ``<file>.before-<revision>``, mode 0600.

    Raises:
        OSError: If the copy cannot be written.
        sqlite3.Error: Likewise, or if the database cannot be read.

    """
    path = file_of(url)
    if path is not None:
        copy(path, path.with_name(f"{path.name}.before-{revision}"))


def copy(path: Path, target: Path) -> None:
    """Copy the SQLite database at *path*, as it is at one moment, to *target*.

    It may be in use, by other processes too.  The copy has mode 0600 and comes into
    its place whole; what was there is replaced.

    Raises:
        OSError: If the copy cannot be written.
        sqlite3.Error: Likewise, or if the database cannot be read.

    """
    draft = target.with_name(f"{target.name}.tmp")
    draft.unlink(missing_ok=True)
    _make_private(draft)
    try:
        with (
            # Not made where it is missing.
            closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
            ) as source,
            closing(sqlite3.connect(draft)) as made,
        ):
            source.backup(made)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _sqlite(url: URL, size: int, *pragmas: str) -> Engine:
    wanted = url.query.get("timeout")
    timeout_s = float(wanted) if isinstance(wanted, str) else BUSY_TIMEOUT_S
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        # Parameters are what people wrote; errors are logged.
        hide_parameters=True,
        connect_args={
            "timeout": timeout_s,
            "isolation_level": None,
        },
    )

    def connected(connection: sqlite3.Connection, _: object) -> None:
        for pragma in ("foreign_keys = ON", *pragmas):
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", connected)
    return engine


def _make_private(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _outside_transaction(connection: Connection, sql: str) -> None:
    """Run *sql* past SQLAlchemy, which would begin a transaction for it."""
    driver = connection.connection.driver_connection
    if driver is not None:
        driver.execute(sql)


def _is_unavailable(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _UNAVAILABLE
    return isinstance(error, OperationalError | InterfaceError)
