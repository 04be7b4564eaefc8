"""The schema: made at once, migrated when behind, refused when newer."""

from __future__ import annotations

import os
import re
import sqlite3
import stat

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from edwin.errors import InternalError, StateError
from edwin.store import Store, changes, dialect
from edwin.store.tables import HEAD, metadata, version
from tests.store.samples import SECRET, held, python, rows, run, user

SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"


def make_behind(path):
    """Leave a database at the very beginning of the history, before any table."""
    engine = create_engine(f"sqlite:///{path}")
    version.create(engine)
    engine.dispose()


async def start(path, *secrets):
    store = Store(f"sqlite:///{path}?timeout=0.3")
    await store.start(secrets or [SECRET])
    await store.stop()


def plain(schema):
    """Return *schema* without the blanks, which a column added later has not."""
    return [(*row[:3], "".join((row[3] or "").split())) for row in schema]


@pytest.mark.gen_test
async def test_store_is_made_as_the_migrations_make_it(tmp_path):
    """A new store and one that was migrated have the same schema."""
    made, migrated = tmp_path / "made.db", tmp_path / "migrated.db"
    make_behind(migrated)
    await start(made)
    await start(migrated)
    assert plain(rows(made, SCHEMA)) == plain(rows(migrated, SCHEMA))
    for path in (made, migrated):
        assert rows(path, "SELECT * FROM alembic_version") == [(HEAD,)]
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@pytest.mark.gen_test
async def test_store_that_is_behind_is_copied_first(tmp_path):
    """Before a migration there is a copy, private, of the database as it was."""
    path = tmp_path / "edwin 100% old.db"
    make_behind(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE relic (content TEXT)")
        connection.execute("INSERT INTO relic VALUES ('dear')")
    copy = tmp_path / f"{path.name}.before-{HEAD}"
    for left in (copy, tmp_path / f"{copy.name}.tmp"):
        left.write_text("left by an attempt that failed")
    await start(path)
    connection.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, copy.name]
    assert rows(copy, "SELECT content FROM relic") == [("dear",)]
    assert rows(copy, "SELECT * FROM alembic_version") == []
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert rows(path, "SELECT * FROM alembic_version") == [(HEAD,)]


@pytest.mark.gen_test
async def test_store_may_rebuild_tables_in_a_migration(tmp_path):
    """A migration may replace a table that others refer to; afterwards they must."""
    path = tmp_path / "edwin.db"
    store = Store(f"sqlite:///{path}")
    await store.start([SECRET])
    await store.begin(run("a"), [user("a", 1)])
    await store.stop()
    engine = dialect.writer_engine(make_url(f"sqlite:///{path}"))
    with engine.connect() as connection:
        dialect.allow_rebuilds(connection)
        with connection.begin():
            for sql in (
                "CREATE TABLE other AS SELECT * FROM sessions",
                "DROP TABLE sessions",
                "ALTER TABLE other RENAME TO sessions",
            ):
                connection.exec_driver_sql(sql)
    engine.dispose()
    assert rows(path, "SELECT last_seq FROM sessions") == [(1,)]
    behind = tmp_path / "behind.db"
    make_behind(behind)
    store = Store(f"sqlite:///{behind}")
    await store.start([SECRET])
    with pytest.raises(InternalError):
        await store.begin(run("a"), [user("unknown", 1)])
    await store.stop()


@pytest.mark.gen_test
async def test_store_is_not_half_migrated(tmp_path):
    """A migration that fails leaves the database as it was."""
    path = tmp_path / "edwin.db"
    make_behind(path)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE pending (mine TEXT)")
    connection.close()
    before = rows(path, SCHEMA)
    with pytest.raises(StateError, match="already exists"):
        await start(path)
    assert rows(path, SCHEMA) == before


@pytest.mark.gen_test
async def test_store_of_a_newer_edwin_is_refused(tmp_path):
    """A schema this Edwin does not know is left alone."""
    path = tmp_path / "edwin.db"
    await start(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StateError, match="a newer Edwin made this store"):
        await start(path)
    assert not list(tmp_path.glob("*before*"))


@pytest.mark.gen_test
async def test_store_is_not_put_into_another_programs_database(tmp_path):
    """A database with other tables, or a file of another kind, is left alone."""
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StateError, match="another program"):
        await start(path)
    assert rows(path, "SELECT name FROM sqlite_master") == [("theirs",)]
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all\n" * 100)
    with pytest.raises(StateError, match="not a database"):
        await start(text)


@pytest.mark.gen_test
async def test_store_says_why_it_cannot_be_opened(tmp_path):
    """A missing folder or a lock that stays is told in plain words."""
    with pytest.raises(StateError, match=r"cannot be opened: .*No such file"):
        await start(tmp_path / "missing" / "edwin.db")
    path = tmp_path / "edwin.db"
    await start(path)
    with held(path), pytest.raises(StateError, match="database is locked"):
        await start(path)
    await start(path)


@pytest.mark.gen_test
async def test_store_refuses_another_session_secret(tmp_path):
    """A store made with another secret is not opened, nor changed; the first counts."""
    path = tmp_path / "edwin.db"
    await start(path, "aa", "bb")
    before = path.read_bytes()
    with pytest.raises(StateError, match="another session secret"):
        await start(path, "bb", "cc")
    assert path.read_bytes() == before
    await start(path, "cc", "aa")
    with pytest.raises(StateError, match="another session secret"):
        await start(path, "aa")
    await start(path, "cc")


@pytest.mark.gen_test
@pytest.mark.parametrize("umask", [0o000, 0o277])
async def test_store_files_are_private(tmp_path, umask):
    """The database and its log are for their owner alone, whatever the umask."""
    path = tmp_path / "edwin.db"
    store = Store(f"sqlite:///{path}")
    old = os.umask(umask)
    try:
        await store.start([SECRET])
        await store.begin(run("a"), [user("a", 1)])
        modes = {
            entry.name: stat.S_IMODE(entry.stat().st_mode)
            for entry in tmp_path.iterdir()
        }
        await store.stop()
    finally:
        os.umask(old)
    assert modes == {
        "edwin.db": 0o600,
        "edwin.db-wal": 0o600,
        "edwin.db-shm": 0o600,
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["edwin.db"]


def test_store_starts_without_alembic_and_orm(tmp_path):
    """Neither a new store nor one that is up to date costs Alembic's import."""
    code = """
import asyncio, sys
from edwin.store import Store

async def main():
    for _ in range(2):
        store = Store(sys.argv[1])
        await store.start(["aa"])
        await store.stop()

asyncio.run(main())
print([name for name in ("alembic", "sqlalchemy.orm") if name in sys.modules])
"""
    out, _ = python(code, f"sqlite:///{tmp_path}/edwin.db").communicate()
    assert out == "[]\n"


def test_store_speaks_sql_that_postgresql_takes():
    """Tables and changes can be said in PostgreSQL's dialect, by position."""
    theirs = postgresql.dialect(paramstyle="format")
    for table in metadata.sorted_tables:
        assert "BLOB" not in str(CreateTable(table).compile(dialect=theirs))
        for index in table.indexes:
            CreateIndex(index).compile(dialect=theirs)
    ours = changes.statements(sqlite.dialect())
    for mine, other in zip(ours, changes.statements(theirs), strict=True):
        plain = re.sub(r"%s(::\w+)?", "?", other).replace("true", "1")
        assert plain == mine.replace('"key"', "key")
