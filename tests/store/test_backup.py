"""A copy of the store, taken while it is in use or not."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest

from edwin.errors import StateError
from edwin.store import Store
from tests.store.samples import ANN, SECRET, answer, python, rows, run, user


@pytest.mark.gen_test
async def test_store_is_copied_while_it_is_in_use(store, tmp_path):
    """A backup is whole and private, holds all that was confirmed, and can be used."""
    target = tmp_path / "100% copy?.db"
    target.write_text("an older backup")
    await store.begin(run("a"), [user("a", 1)])
    writing = asyncio.ensure_future(
        store.finish(run("a", "finished"), [answer("a", 2)])
    )
    await store.backup(target)
    await writing
    old = os.umask(0)
    try:
        await store.backup(target)
    finally:
        os.umask(old)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert rows(target, "PRAGMA integrity_check") == [("ok",)]
    await store.begin(run("b"), [user("b", 3)])
    other = Store(f"sqlite:///{tmp_path}/restored.db")
    target.rename(tmp_path / "restored.db")
    await other.start([SECRET])
    assert [one.seq for one in (await other.transcript(ANN)).entries] == [1, 2]
    await other.stop()
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {"edwin.db", "edwin.db-wal", "edwin.db-shm", "restored.db"}


@pytest.mark.gen_test
async def test_store_is_copied_by_another_process(store, url, tmp_path):
    """A backup needs no start: a running gateway's runs are left alone."""
    await store.begin(run("a"), [user("a", 1)])
    code = """
import asyncio, pathlib, sys
from edwin.store import Store
asyncio.run(Store(sys.argv[1]).backup(pathlib.Path(sys.argv[2])))
"""
    process = python(code, url, tmp_path / "copy.db")
    await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    assert rows(tmp_path / "copy.db", "SELECT state FROM runs") == [("running",)]
    await store.finish(run("a", "finished"))
    assert [line.state for line in await store.runs()] == ["finished"]


@pytest.mark.gen_test
async def test_store_is_copied_when_nobody_uses_it(tmp_path, url, path):
    """A backup of a store at rest leaves no other file behind."""
    store = Store(url)
    await store.start([SECRET])
    await store.begin(run("a"), [user("a", 1)])
    await store.stop()
    await Store(url).backup(tmp_path / "copy.db")
    assert rows(tmp_path / "copy.db", "SELECT count(*) FROM messages") == [(1,)]
    assert {entry.name for entry in tmp_path.iterdir()} == {"edwin.db", "copy.db"}


@pytest.mark.gen_test
async def test_store_says_why_it_cannot_be_copied(store, tmp_path):
    """A backup that fails says why, and leaves what was there before."""
    with pytest.raises(StateError, match=r"backup failed: .*No such file"):
        await store.backup(tmp_path / "missing" / "copy.db")
    target = tmp_path / "copy.db"
    target.write_text("an older backup")
    with pytest.raises(StateError, match="backup failed: unable to open"):
        await Store(f"sqlite:///{tmp_path}/nothing.db").backup(target)
    text = tmp_path / "text.db"
    text.write_text("not a database at all\n" * 100)
    with pytest.raises(StateError, match="not a database"):
        await Store(f"sqlite:///{text}").backup(target)
    assert target.read_text() == "an older backup"
    assert not (tmp_path / "nothing.db").exists()
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(StateError, match="pg_dump"):
        await Store("postgresql://localhost/edwin").backup(target)
