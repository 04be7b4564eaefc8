"""Is the store whole, of this version, and made with this session secret?"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edwin.config import Config
from edwin.doctor.finding import Finding, ok, problem, warning
from edwin.state import SESSION_SECRET, Holder

DATABASE = "edwin.db"
PATIENCE_S = 60.0

_STEPS = 10_000


def check_store(
    config: Config, holder: Holder | None, *, patience_s: float = PATIENCE_S
) -> Iterator[Finding]:
    """Read the whole database, and change nothing.

    Args:
        config: Says where it is.
        holder: Who holds the state folder, if anybody does.
        patience_s: How long looking for damage may take.

    """
    path = config.gateway.state_dir / DATABASE
    try:
        if not path.exists():
            yield ok("store", f"{path} will be made at the first start")
            return
        with closing(_opened(path, held=holder is not None)) as database:
            yield from _revision(database, path)
            yield from _secret(database, config)
            yield from _integrity(database, path, patience_s)
    except (sqlite3.Error, OSError) as error:
        yield problem(
            "store",
            f"{path} cannot be read: {error}",
            "the gateway cannot start, or not find what it has kept",
            "move it away and bring back a backup (edwin restore)",
        )


def _opened(path: Path, *, held: bool) -> sqlite3.Connection:
    """Open the database for reading.

    Raises:
        sqlite3.Error: If it cannot be opened.

    """
    log = path.with_name(f"{path.name}-wal")
    # Where nobody writes, and nothing waits in the log, no file is made beside it.
    alone = not held and not (log.exists() and log.stat().st_size)
    how = "immutable=1" if alone else "mode=ro"
    uri = f"{path.absolute().as_uri()}?{how}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)


def _revision(database: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    from edwin.store.tables import HEAD

    try:
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        row = None
    if row is None:
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            yield problem(
                "store",
                f"{path} holds the tables of another program",
                "the gateway cannot start",
                "set gateway.stateDir to another folder",
            )
    elif row[0] == HEAD:
        yield ok("store", f"{path} has the tables of this version ({HEAD})")
    elif row[0] < HEAD:
        yield warning(
            "store",
            f"{path} has the tables of an older version ({row[0]})",
            f"the next start brings them up to {HEAD}, after copying the file",
            "leave room for the copy on that disk",
        )
    else:
        yield problem(
            "store",
            f"{path} has the tables of a newer version ({row[0]})",
            f"the gateway cannot start: it knows those up to {HEAD}",
            "start the newer Edwin",
        )


def _secret(database: sqlite3.Connection, config: Config) -> Iterator[Finding]:
    """Yield that the store was made with another session secret."""
    secrets = list(config.gateway.session_secrets)
    if not secrets:
        file = config.gateway.state_dir / SESSION_SECRET
        secrets = [file.read_text("utf-8").strip()] if file.exists() else []
    query = "SELECT value FROM meta WHERE key = 'session_secret'"
    try:
        row = database.execute(query).fetchone()
    except sqlite3.OperationalError:
        return
    digests = {hashlib.sha256(secret.encode()).hexdigest() for secret in secrets}
    if row is not None and row[0] not in digests:
        yield problem(
            "store",
            "the store was made with another session secret",
            "the gateway cannot start: nobody's session would be found again",
            f"bring back the file {SESSION_SECRET}, or add the former secret to "
            "gateway.sessionSecrets",
        )


def _integrity(
    database: sqlite3.Connection, path: Path, patience_s: float
) -> Iterator[Finding]:
    until = time.monotonic() + patience_s
    database.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    try:
        (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        stray = database.execute("PRAGMA foreign_key_check").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        size = path.stat().st_size / 2**30
        yield warning(
            "store",
            f"{path} has {size:.1f} GiB, and was not read to its end",
            f"looking for damage was given up after {patience_s:g} s",
            "check a copy of it (edwin backup) with sqlite3's PRAGMA quick_check",
        )
        return
    if found == "ok" and stray is None:
        yield ok("store", f"{path} is whole")
        return
    what = found if found != "ok" else f"a row of {stray[0]} belongs to no other"
    yield problem(
        "store",
        f"{path} is damaged: {what}",
        "runs fail, or answer from half of what was said",
        "stop the gateway, move the file away, and bring back a backup (edwin restore)",
    )
