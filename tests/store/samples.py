"""Records, entries and obstacles that the tests of the store share."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from edwin.types import Entry, Message, RunRecord, SessionId, Usage

SECRET = "aa" * 32
ANN = SessionId("owner", "main", "agent:main:openai-user:0123")
BOB = SessionId("owner", "main", "agent:main:openai-user:4567")


def run(name: str, state: str = "running", **changes: Any) -> RunRecord:
    """Return a run of Ann's, unless *changes* say whose."""
    values: dict[str, Any] = {
        "request_id": f"req_{name}",
        "session": ANN,
        "created_at": 1000.0,
        "started_at": 1000.5,
    }
    if state not in ("queued", "running"):
        values |= {"finished_at": 1001.25, "usage": Usage(10, 5)}
    return RunRecord(run_id=f"run_{name}", state=state, **(values | changes))


def of(session: SessionId) -> dict[str, str]:
    """Return what asks the ledger for the runs of *session*."""
    principal, agent, key = session
    return {"principal": principal, "agent": agent, "session_key": key}


def user(name: str, seq: int, text: str = "hello") -> Entry:
    """Return a user message of run *name*."""
    return entry(name, seq, {"role": "user", "content": text})


def answer(name: str, seq: int, text: str = "hi") -> Entry:
    """Return an answer of run *name*."""
    return entry(name, seq, {"role": "assistant", "content": text}, own=True)


def entry(name: str, seq: int, message: Message, *, own: bool = False) -> Entry:
    """Return *message* as run *name* appends it."""
    return Entry(seq, f"run_{name}", message, own, b"%d" % seq)


def image(data: str) -> Message:
    """Return a user message that shows the image *data*."""
    url = {"url": f"data:image/png,{data}"}
    return {"role": "user", "content": [{"type": "image_url", "image_url": url}]}


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return what *sql* finds in the database at *path*, past the store."""
    with sqlite3.connect(path) as connection:
        found = connection.execute(sql).fetchall()
    connection.close()
    return found


@contextmanager
def obstacle(pragma: str) -> Iterator[None]:
    """Put SQLite's own *pragma* in the way of every transaction."""

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA {pragma}")

    event.listen(Engine, "begin", begun)
    try:
        yield
    finally:
        event.remove(Engine, "begin", begun)


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that go to any database, each with its parameters."""
    seen: list[tuple[str, Any]] = []

    def executed(_: object, __: object, sql: str, parameters: Any, *rest: Any) -> None:
        seen.append((sql, parameters))

    event.listen(Engine, "before_cursor_execute", executed)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", executed)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the database's write lock, from another connection."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """Start *code* in a Python of its own, in the checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
