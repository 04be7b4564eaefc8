"""Idempotency keys, and how runs ended that somebody may ask for later."""

from __future__ import annotations

import asyncio

import pytest

from edwin.errors import StorageUnavailable
from edwin.store import Store
from edwin.types import IdempotencyKey, KeptRun
from tests.store.samples import (
    ANN,
    SECRET,
    answer,
    held,
    obstacle,
    rows,
    run,
    statements,
    user,
)

KEY = IdempotencyKey("once", b"\x01\x02")
ALONE = ANN._replace(key="agent:main:openai:1")


def counts(path):
    """Return how many keys and outcomes the database has."""
    query = "SELECT (SELECT count(*) FROM keys), (SELECT count(*) FROM outcomes)"
    return rows(path, query)[0]


@pytest.mark.gen_test
async def test_store_finds_a_run_by_its_key(store):
    """A key leads to its run, with the request's fingerprint and the run's outcome."""
    await store.begin(run("a"), [user("a", 1)], key=KEY)
    assert await store.kept("owner", "once") == KeptRun(run("a"), b"\x01\x02")
    ended = run("a", "finished", events=7)
    await store.finish(ended, [answer("a", 2)], outcome='{"it": "ended"}')
    kept = KeptRun(ended, b"\x01\x02", '{"it": "ended"}')
    assert await store.kept("owner", "once") == kept
    assert await store.run("run_a") == kept
    assert await store.kept("owner", "twice") is None
    assert await store.kept("other", "once") is None


@pytest.mark.gen_test
async def test_store_finds_any_run_by_its_id(store):
    """A run without key or outcome is found by its id; an unknown one is not."""
    await store.begin(run("a"), [user("a", 1)])
    assert await store.run("run_a") == KeptRun(run("a"))
    assert await store.run("run_b") is None


@pytest.mark.gen_test
async def test_store_keeps_the_key_of_a_run_that_waits(store):
    """The key comes with what is written first, and may come again."""
    waits = run("a", "queued", started_at=None)
    await store.pend(waits, [{"role": "user", "content": "later"}], key=KEY)
    assert (await store.kept("owner", "once")).record == waits
    await store.begin(run("a"), [user("a", 1, "later")], key=KEY)
    assert (await store.kept("owner", "once")).record == run("a")


@pytest.mark.gen_test
async def test_store_opens_a_run_without_a_session(store):
    """A stateless run whose outcome is kept has its line before it goes on."""
    await store.open(run("a", session=ALONE), key=KEY)
    await store.open(run("b", session=ALONE, created_at=2000.0))
    assert (await store.kept("owner", "once")).record.run_id == "run_a"
    assert [line.run_id for line in await store.runs()] == ["run_b", "run_a"]
    await store.finish(run("b", "finished", session=ALONE), outcome="{}")
    assert await store.run("run_b") == KeptRun(
        run("b", "finished", session=ALONE, created_at=2000.0), outcome="{}"
    )
    assert await store.session(ALONE) is None


@pytest.mark.gen_test
async def test_store_leaves_a_key_to_its_run(store):
    """A key that a run has is not given to another."""
    await store.open(run("a", session=ALONE), key=KEY)
    await store.open(run("b", session=ALONE), key=KEY._replace(fingerprint=b"other"))
    assert await store.kept("owner", "once") == KeptRun(
        run("a", session=ALONE), b"\x01\x02"
    )


@pytest.mark.gen_test
@pytest.mark.parametrize("noted", [False, True])
async def test_store_lets_a_key_go(store, path, noted):
    """A key that its run gave up is free at once, for the next run that has it."""
    refused = run("a", "failed", session=ALONE)
    await store.open(run("a", session=ALONE), key=KEY)
    if noted:
        store.note(refused, release=True)
    else:
        await store.finish(refused, release=True)
    assert await store.kept("owner", "once") is None
    await store.open(run("b", session=ALONE), key=KEY)
    assert (await store.kept("owner", "once")).record.run_id == "run_b"
    assert await store.run("run_a") == KeptRun(refused)
    assert counts(path) == (1, 0)


@pytest.mark.gen_test
async def test_store_keeps_the_order_of_what_becomes_of_a_key(store, path):
    """Taken, let go and taken again in one transaction, a key is the last one's."""
    with held(path):
        tasks = [
            asyncio.ensure_future(store.begin(run("z"), [])),
            asyncio.ensure_future(store.open(run("a", session=ALONE), key=KEY)),
        ]
        await asyncio.sleep(0.05)
        store.note(run("a", "failed", session=ALONE), release=True)
        other = KEY._replace(fingerprint=b"other")
        tasks += [
            asyncio.ensure_future(store.open(run(name, session=ALONE), key=other))
            for name in "bc"
        ]
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)
    assert await store.kept("owner", "once") == KeptRun(
        run("b", session=ALONE), b"other"
    )


@pytest.mark.gen_test
async def test_store_tells_of_an_outcome_that_is_noted(store, path):
    """While the disk takes nothing, an outcome is known though it is not written."""
    await store.open(run("a", session=ALONE), key=KEY)
    ended = run("a", "failed", session=ALONE)
    kept = KeptRun(ended, b"\x01\x02", "{}")
    with obstacle("query_only = ON"):
        with pytest.raises(StorageUnavailable):
            await store.finish(ended, outcome="{}")
        assert (await store.kept("owner", "once")).outcome is None
        store.note(ended, outcome="{}")
        store.note(run("b", "failed", session=ALONE), outcome="{}")
        assert await store.kept("owner", "once") == kept
        assert await store.run("run_a") == kept
        assert (await store.run("run_b")).outcome == "{}"
        assert counts(path) == (1, 0)
    await store.begin(run("c"), [])
    store.note(run("a", "finished", session=ALONE), outcome="{1}")
    store.note(run("a", "finished", session=ALONE), outcome="{2}")
    for _ in range(100):
        if counts(path) == (1, 2):
            break
        await asyncio.sleep(0.05)
    await store.begin(run("d"), [])
    assert (await store.kept("owner", "once")).outcome == "{2}"
    assert not store._notes


@pytest.mark.gen_test
async def test_store_forgets_notes_that_are_lost(url):
    """A note that could not be written at the stop is not told of after it."""
    store = Store(url)
    await store.start([SECRET])
    await store.open(run("a", session=ALONE), key=KEY)
    with obstacle("query_only = ON"):
        store.note(run("a", "failed", session=ALONE), release=True)
        store.note_delivered("run_a")
        await store.stop()
    await store.start([SECRET])
    kept = await store.kept("owner", "once")
    assert (kept.record.error_code, kept.outcome) == ("gateway_restarted", None)
    await store.stop()


@pytest.mark.gen_test
async def test_store_writes_ordinary_runs_as_ever(store):
    """A run without a key costs not a statement more than its rows need."""
    with statements() as seen:
        await store.begin(run("a"), [user("a", 1)])
        await store.finish(run("a", "finished"), [answer("a", 2)])
    kinds = [" ".join(sql.split()[:3]) for sql, _ in seen]
    written = ["BEGIN IMMEDIATE", "INSERT INTO sessions", "INSERT INTO runs"]
    assert kinds == [
        *written,
        "INSERT INTO messages",
        "DELETE FROM pending",
        *written,
        "INSERT INTO messages",
    ]


@pytest.mark.gen_test
async def test_store_tells_of_the_latest_note(store):
    """What was noted later holds, though only what was noted earlier is written."""
    await store.open(run("a", session=ALONE), key=KEY)
    store.note(run("a", "failed", session=ALONE), outcome="{1}")
    written = asyncio.ensure_future(store.begin(run("b"), []))
    await asyncio.sleep(0)  # it has taken the first note along
    store.note(run("a", "failed", session=ALONE), release=True)
    await written
    assert await store.kept("owner", "once") is None
    assert (await store.run("run_a")).fingerprint == b""
