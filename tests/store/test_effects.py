"""Runs that have begun something which must not be done twice."""

from __future__ import annotations

import asyncio
import signal
import sqlite3

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from edwin.store import Store
from edwin.store.upgrade import MIGRATIONS
from edwin.types import IdempotencyKey, KeptRun
from tests.store.samples import ANN, SECRET, answer, held, python, rows, run, user

KEY = IdempotencyKey("once", b"\x01\x02")
ALONE = ANN._replace(key="agent:main:openai:1")


@pytest.mark.gen_test
async def test_store_marks_the_effects_of_a_run_of_a_session(store, path):
    """The mark changes the run's line and nothing beside it."""
    await store.begin(run("a"), [user("a", 1), user("a", 2)], [], key=KEY)
    tables = ("sessions", "messages", "keys", "outcomes", "pending")
    before = [rows(path, f"SELECT * FROM {table}") for table in tables]
    await store.open(run("a", effects=True))
    assert [rows(path, f"SELECT * FROM {table}") for table in tables] == before
    marked = run("a", effects=True)
    assert await store.runs() == [marked]
    assert await store.kept("owner", "once") == KeptRun(marked, b"\x01\x02")


@pytest.mark.gen_test
async def test_store_marks_a_run_that_has_no_line_yet(store):
    """A run without a session, key or line gets its line with the mark."""
    alone = run("a", session=ALONE, effects=True)
    await store.open(alone)
    assert await store.runs() == [alone]
    assert await store.session(ALONE) is None
    ended = run("a", "finished", session=ALONE, effects=True)
    await store.finish(ended)
    assert await store.runs() == [ended]


@pytest.mark.gen_test
@pytest.mark.parametrize("outcome", [None, '{"it": "ended"}'])
@pytest.mark.parametrize("noted", [False, True])
async def test_store_never_takes_a_mark_back(store, noted, outcome):
    """A record from before the mark ends the run, and the mark stays."""
    await store.begin(run("a"), [user("a", 1)])
    await store.open(run("a", effects=True))
    older = run("a", "finished", effects=False)
    if noted:
        store.note(older, outcome=outcome)
        told = await store.run("run_a")
        assert told.record.effects
        await store.begin(run("b", created_at=999.0), [user("b", 2)])
    else:
        await store.finish(older, [answer("a", 2)], outcome=outcome)
    expected = KeptRun(older._replace(effects=True), outcome=outcome)
    assert await store.run("run_a") == expected
    assert (await store.runs())[0] == expected.record


@pytest.mark.gen_test
async def test_store_keeps_a_mark_that_came_in_the_same_transaction(store, path):
    """Mark and end in one commit, whichever record was made first: it is marked."""
    with held(path):
        tasks = [
            asyncio.ensure_future(call)
            for call in (
                store.begin(run("a"), [user("a", 1)]),
                store.open(run("a", effects=True)),
                store.finish(run("a", "failed"), [answer("a", 2)]),
            )
        ]
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)
    assert await store.runs() == [run("a", "failed", effects=True)]


@pytest.mark.gen_test
async def test_store_has_the_mark_after_a_kill(tmp_path):
    """Once open() returned, the mark outlives the process, and its restart."""
    code = """
import asyncio, sys
from edwin.store import Store
from tests.store.samples import SECRET, run, user

async def main():
    store = Store(sys.argv[1])
    await store.start([SECRET])
    await store.begin(run("a"), [user("a", 1)])
    await store.begin(run("b", created_at=2000.0), [user("b", 2)])
    await store.open(run("a", effects=True))
    print("durable", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    url = f"sqlite:///{tmp_path}/edwin.db"
    process = python(code, url)
    assert process.stdout.readline() == "durable\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for _ in range(2):
        store = Store(url)
        await store.start([SECRET])
        found = [
            (line.run_id, line.state, line.error_code, line.effects)
            for line in await store.runs()
        ]
        await store.stop()
        assert found == [
            ("run_b", "failed", "gateway_restarted", False),
            ("run_a", "failed", "gateway_restarted", True),
        ]


@pytest.mark.gen_test
async def test_store_of_the_release_before_has_no_effects(url, path):
    """Runs from before the column are not marked, and can be."""
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO runs VALUES ('run_a', 'req_a', ?, ?, ?, 'finished', 1000.0, "
            "1000.5, 1001.25, NULL, NULL, NULL, 10, 5, 0, 0, 0, 0, 0)",
            ANN,
        )
    connection.close()
    store = Store(url)
    await store.start([SECRET])
    assert await store.runs() == [run("a", "finished")]
    await store.open(run("a", "finished", effects=True))
    assert await store.runs() == [run("a", "finished", effects=True)]
    await store.stop()
