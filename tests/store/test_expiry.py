"""What is past its time goes, in batches."""

from __future__ import annotations

import pytest

from edwin.errors import StorageUnavailable
from edwin.store import removal
from edwin.types import IdempotencyKey
from tests.store.samples import (
    ANN,
    BOB,
    answer,
    entry,
    image,
    obstacle,
    rows,
    run,
    statements,
    user,
)

LIMITS = {"now": 10_000.0, "max_age_s": 0, "max_messages": 0, "kept_s": 3600.0}


async def expire(store, **changes):
    """Remove all that is past its time; return how much each batch removed."""
    removed = []
    while count := await store.expire(**(LIMITS | changes)):
        removed.append(count)
        assert len(removed) < 100
    return removed


async def keep(store, name, ended_at, *, session=ANN, key=True, **changes):
    """Store a run whose outcome is kept, and its key unless *key* is false."""
    idempotency = IdempotencyKey(name, b"") if key else None
    await store.open(run(name, session=session, **changes), key=idempotency)
    if ended_at is not None:
        ended = run(name, "finished", session=session, finished_at=ended_at)
        await store.finish(ended, outcome="{}")


async def say(store, name, seq, count=2, *, session=ANN, images=(), **changes):
    """Store *count* messages of one run, the first of them with *images*."""
    first = [entry(name, place, image(data)) for place, data in enumerate(images, seq)]
    rest = [user(name, place) for place in range(seq + len(first), seq + count)]
    await store.begin(run(name, session=session, **changes), first + rest)
    await store.finish(run(name, "finished", session=session, **changes))


async def places(store, session=ANN):
    return [one.seq for one in await store.messages(session, superseded=True)]


@pytest.mark.gen_test
async def test_store_lets_keys_and_outcomes_go(store, path):
    """A key and an outcome go some time after their run's end, not after its start."""
    await keep(store, "old", 6399.0)
    await keep(store, "young", 6401.0)
    await keep(store, "open", None)
    await keep(store, "detached", 6399.0, key=False)
    await keep(store, "new", 9000.0, created_at=9000.0)
    await store.begin(run("lost"), [], key=IdempotencyKey("lost", b""))
    await store.finish(run("lost", "failed", finished_at=5000.0))
    assert await expire(store) == [4]
    assert rows(path, "SELECT key FROM keys ORDER BY key") == [
        ("new",),
        ("open",),
        ("young",),
    ]
    assert rows(path, "SELECT run_id FROM outcomes ORDER BY run_id") == [
        ("run_new",),
        ("run_young",),
    ]
    assert len(await store.runs()) == 6
    assert await store.kept("owner", "old") is None
    assert (await store.run("run_old")).outcome is None


@pytest.mark.gen_test
async def test_store_lets_sessions_go_that_nobody_uses(store, path):
    """A session goes when it was not used for long, unless a run of it is open."""
    guest = ANN._replace(principal="guest")
    busy = ANN._replace(key="busy")
    used = ANN._replace(key="used")
    await say(store, "a", 1, images=["shared", "own"])
    await say(store, "b", 1, session=guest)
    await say(store, "c", 1, session=used, images=["shared"], finished_at=9500.0)
    await say(store, "d", 1, session=busy)
    await store.pend(run("e", "queued", session=busy), [])
    assert await expire(store, max_age_s=1000.0)
    for session in (ANN, guest):
        assert await store.session(session) is None
    assert {one.session for one in await store.sessions(principal=None)} == {busy, used}
    assert rows(path, "SELECT data FROM blobs") == [(b"data:image/png,shared",)]
    assert len(await store.runs(session_key="")) == 2
    await store.finish(run("e", "cancelled", session=busy))
    assert await expire(store, max_age_s=1000.0)
    assert await expire(store, max_age_s=1000.0) == []
    assert [one.session for one in await store.sessions(principal=None)] == [used]


@pytest.mark.gen_test
async def test_store_shortens_long_sessions(store):
    """Of a long session the oldest runs go, each whole, and the newest never."""
    for name, seq, count in (("a", 1, 3), ("b", 4, 2), ("c", 6, 2), ("d", 8, 1)):
        await say(store, name, seq, count)
        await say(store, f"{name}2", seq, count, session=BOB)
    assert await expire(store, max_messages=8) == []
    assert await expire(store, max_messages=7) == [6]
    assert await places(store) == [4, 5, 6, 7, 8]
    assert sum(await expire(store, max_messages=2)) == 8
    assert await places(store) == [8]
    await say(store, "e", 9, 4)
    assert sum(await expire(store, max_messages=2)) == 1
    assert await places(store) == [9, 10, 11, 12]
    assert await places(store, BOB) == [8]
    found = await store.transcript(ANN)
    assert [one.seq for one in found.entries] == [9, 10, 11, 12]
    assert found.last_seq == 12
    await say(store, "f", 13)
    assert sum(await expire(store, max_messages=2)) == 4
    assert await places(store) == [13, 14]


@pytest.mark.gen_test
async def test_store_shortens_past_sessions_that_cannot_be(store):
    """Sessions that one run alone makes too long are in nobody's way."""
    for number in range(5):
        other = ANN._replace(key=f"key-{number}")
        await say(store, f"long{number}", 1, 10, session=other)
    await say(store, "a", 1)
    await say(store, "b", 3)
    await say(store, "c", 5)
    assert await expire(store, max_messages=3, batch=2) == [2, 2]
    assert await places(store) == [5, 6]


@pytest.mark.gen_test
async def test_store_lets_images_go_with_the_messages(store, path):
    """An image goes with the last message, pending or not, that shows it."""

    def data():
        found = rows(path, "SELECT data FROM blobs ORDER BY data")
        return [value.decode().rpartition(",")[2] for (value,) in found]

    await say(store, "a", 1, 4, images=["bob's", "gone", "later", "pended"])
    await say(store, "b", 5, 2, images=["later"])
    await say(store, "c", 1, session=BOB, images=["bob's"])
    await store.pend(run("d", "queued"), [image("pended"), {"role": "user"}])
    assert await expire(store, max_messages=3) == [4]
    assert data() == ["bob's", "later", "pended"]
    assert (await store.transcript(ANN)).entries[0].message == image("later")
    uses = "SELECT count(*) FROM blob_uses"
    assert rows(path, uses) == [(3,)]
    await store.delete(BOB)
    await store.delete(ANN)
    assert data() == []
    assert rows(path, uses) == [(0,)]


@pytest.mark.gen_test
async def test_store_removes_in_batches(store, path):
    """However much is past its time, one call removes about a batch of it."""
    for number in range(7):
        session = ANN._replace(key=f"key-{number}")
        await keep(store, str(number), 2000.0)
        await say(store, f"s{number}", 1, session=session)
    for number in range(1, 31):
        at = {"started_at": 9999.0, "finished_at": 9999.0}
        await say(store, f"r{number}", number, 1, session=BOB, **at)
    removed = await expire(store, batch=3, max_age_s=1000.0, max_messages=10)
    assert len(removed) >= 10
    assert max(removed) <= 6 + 3
    assert rows(path, "SELECT count(*) FROM keys") == [(0,)]
    assert await places(store, BOB) == [*range(21, 31)]
    assert [one.session for one in await store.sessions(principal=None)] == [BOB]


@pytest.mark.gen_test
async def test_store_has_nothing_to_remove(store):
    """When nothing is past its time, nothing is written and no table is searched.

    Only how long sessions are is looked up, in their own rows.
    """
    await say(store, "a", 1)
    await keep(store, "b", 9000.0)
    limits = LIMITS | {"max_age_s": 9500.0, "max_messages": 100}
    with statements() as seen:
        assert await store.expire(**limits) == 0
    assert [sql.split()[0] for sql, _ in seen] == ["SELECT"] * 6

    def plan(connection):
        return [
            step[3]
            for statement, parameters in seen
            for step in connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {statement}", parameters
            )
        ]

    steps = await store._read(plan)
    assert [step for step in steps if step.startswith("SCAN")] == ["SCAN sessions"]


@pytest.mark.gen_test
async def test_store_that_cannot_be_written_removes_nothing(store, path):
    """An obstacle is told, and everything is there until a later call."""
    await keep(store, "a", 2000.0)
    with obstacle("query_only = ON"), pytest.raises(StorageUnavailable):
        await store.expire(**LIMITS)
    assert rows(path, "SELECT count(*) FROM outcomes") == [(1,)]
    assert await store.expire(**LIMITS) == 2


@pytest.mark.gen_test
async def test_store_expiry_leaves_a_session_usable(store):
    """A session that was shortened or removed goes on as any other."""
    await say(store, "a", 1)
    await say(store, "b", 3)
    await expire(store, max_messages=2)
    await store.begin(run("c"), [user("c", 5)], [1, 4])
    await store.finish(run("c", "finished"), [answer("c", 6)])
    assert [one.seq for one in (await store.transcript(ANN)).entries] == [3, 5, 6]
    await expire(store, max_age_s=1000.0)
    await say(store, "d", 7)
    found = await store.transcript(ANN)
    assert ([one.seq for one in found.entries], found.last_seq) == ([7, 8], 8)


@pytest.mark.gen_test
async def test_store_leaves_what_is_used_meanwhile(store):
    """A session that is used or shortened between a look and the removal is left."""
    await say(store, "a", 1)
    await say(store, "b", 3)
    await say(store, "c", 1, 5, session=BOB)
    await say(store, "d", 6, 1, session=BOB)
    limits = removal.Limits(0.0, 5000.0, 2, 100)
    found = await store._read(lambda connection: removal.find(connection, limits))
    assert (len(found.unused), len(found.long)) == (2, 2)
    await store.begin(run("e", started_at=6000.0), [user("e", 5)])
    await store.delete(BOB)
    await expire(store, max_messages=2)
    left = await places(store)
    clear = store._running().call(lambda c: removal.clear(c, found, limits))
    assert await clear == 0
    assert await places(store) == left == [5]
