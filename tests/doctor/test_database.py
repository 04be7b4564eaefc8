"""The store: whole, of this version, of this secret."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from edwin.cli.bundle import DATABASE as BACKED_UP
from edwin.doctor.database import DATABASE, check_store
from edwin.state import Holder
from edwin.store.tables import HEAD
from tests.conftest import Client
from tests.doctor.conftest import told

HOLDER = Holder(1, None)


@pytest.fixture
def store(io_loop, make_gateway, state):
    """Return the path of a gateway's database, the gateway being gone."""

    async def use() -> None:
        served = await make_gateway(state_dir=state)
        answer = await Client(served).chat("My name is Ada.", user="ada")
        assert answer.status == 200
        await served.stop()

    io_loop.run_sync(use)
    return state / DATABASE


def change(path, *statements) -> None:
    """Carry *statements* out on the database."""
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_doctor_likes_a_store(make_config, store):
    """A store that was stopped is right; looking leaves everything as it is."""
    before = {path: path.stat().st_mtime_ns for path in store.parent.iterdir()}
    assert told(check_store(make_config(), None)) == [
        ("ok", f"{store} has the tables of this version ({HEAD})"),
        ("ok", f"{store} is whole"),
    ]
    assert {p: p.stat().st_mtime_ns for p in store.parent.iterdir()} == before
    assert DATABASE == BACKED_UP


@pytest.mark.gen_test
async def test_doctor_likes_a_store_in_use(make_config, make_gateway, state):
    """So is one that a gateway writes meanwhile."""
    client = Client(await make_gateway(state_dir=state))
    assert (await client.chat("Hello", user="ada")).status == 200
    levels = [level for level, _ in told(check_store(make_config(), HOLDER))]
    assert levels == ["ok", "ok"]
    assert (await client.chat("And on", user="ada")).status == 200


def test_doctor_reads_what_a_crash_left(make_config, store, tmp_path):
    """What is in the write-ahead log alone is looked at too."""
    with closing(sqlite3.connect(store)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
        for name in (DATABASE, f"{DATABASE}-wal"):
            shutil.copy(store.with_name(name), tmp_path / name)
    for name in (DATABASE, f"{DATABASE}-wal"):
        shutil.copy(tmp_path / name, store.with_name(name))
    levels = [level for level, _ in told(check_store(make_config(), None))]
    assert levels == ["problem", "ok"]


@pytest.mark.parametrize(
    ("revision", "level", "words"),
    [
        ("0001", "warning", "older version (0001)"),
        ("9999", "problem", "newer version (9999)"),
    ],
)
def test_doctor_finds_other_revisions(make_config, store, revision, level, words):
    """An older store is migrated by the next start, a newer one by none."""
    change(store, f"UPDATE alembic_version SET version_num = '{revision}'")
    found = told(check_store(make_config(), None))
    assert (found[0][0], found[1][0]) == (level, "ok")
    assert words in found[0][1]


def test_doctor_finds_another_secret(make_config, store):
    """Without its session secret a store is of no use."""
    (store.parent / "session-secret").unlink()
    found = told(check_store(make_config(), None))
    assert ("problem", "the store was made with another session secret") in found


def test_doctor_finds_damage(make_config, store):
    """A store with a damaged page is a problem."""
    data = bytearray(store.read_bytes())
    data[4096 : 4 * 4096] = b"\xff" * (3 * 4096)
    store.write_bytes(data)
    assert "problem" in [level for level, _ in told(check_store(make_config(), None))]


def test_doctor_finds_strays(make_config, store):
    """So are messages whose session is gone."""
    change(store, "DELETE FROM sessions")
    found = told(check_store(make_config(), None))
    assert found[-1] == (
        "problem",
        f"{store} is damaged: a row of messages belongs to no other",
    )


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite"])
def test_doctor_finds_what_is_no_store(make_config, state, content):
    """A file that is no database is a problem, and no crash."""
    state.mkdir()
    (state / DATABASE).write_bytes(content)
    assert [level for level, _ in told(check_store(make_config(), None))] == ["problem"]


def test_doctor_finds_the_tables_of_another_program(make_config, state):
    """So is another program's."""
    state.mkdir()
    change(state / DATABASE, "CREATE TABLE theirs (x)")
    found = told(check_store(make_config(), None))
    expected = f"{state / DATABASE} holds the tables of another program"
    assert found[0] == ("problem", expected)


def test_doctor_gives_up_on_a_long_store(make_config, store):
    """A store that takes too long to read is not called whole."""
    rows = "SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 200000"
    change(store, f"CREATE TABLE many AS WITH n(x) AS ({rows}) SELECT x FROM n")
    found = told(check_store(make_config(), None, patience_s=0))
    assert found[-1][0] == "warning"
    assert found[-1][1].endswith("was not read to its end")
