"""Sessions that begin anew or are deleted."""

from __future__ import annotations

import asyncio

import pytest

from edwin.errors import StorageUnavailable
from edwin.store import Store
from edwin.types import IdempotencyKey, Transcript
from tests.store.samples import (
    ANN,
    BOB,
    SECRET,
    answer,
    entry,
    held,
    image,
    obstacle,
    rows,
    run,
    user,
)

TABLES = (
    "sessions",
    "messages",
    "pending",
    "keys",
    "outcomes",
    "blob_uses",
    "blobs",
    "runs",
)


def contents(path):
    """Return every row of the store."""
    return {table: sorted(rows(path, f"SELECT * FROM {table}")) for table in TABLES}


async def talk(store, name, seq, *, session=ANN, images=(), key=None):
    """Store a run with images in its question, and its outcome."""
    idempotency = key and IdempotencyKey(key, b"")
    asked = [
        entry(name, place, image(data)) for place, data in enumerate(images, seq)
    ] or [user(name, seq)]
    await store.begin(run(name, session=session), asked, key=idempotency)
    last = [answer(name, seq + len(asked))]
    ended = run(name, "finished", session=session)
    await store.finish(ended, last, outcome=key and "{}")


@pytest.mark.gen_test
async def test_store_lets_a_session_begin_anew(store, path):
    """After a reset the transcript is empty, and what was in it is kept."""
    await talk(store, "a", 1)
    await store.pend(run("b", "queued"), [{"role": "user", "content": "x"}])
    assert await store.reset(ANN, 5000.0)
    assert await store.transcript(ANN) == Transcript(last_seq=2, used_at=5000.0)
    assert (await store.session(ANN))[2:] == (5000.0, 0)
    await talk(store, "c", 3)
    found = await store.transcript(ANN)
    assert [one.seq for one in found.entries] == [3, 4]
    assert (found.last_seq, found.used_at) == (4, 1001.25)
    assert len(rows(path, "SELECT * FROM messages")) == 4
    assert not await store.reset(BOB, 5000.0)
    assert await store.transcript(BOB) == Transcript()


@pytest.mark.gen_test
async def test_store_deletes_all_of_a_session(store, path):
    """Of a deleted session nothing is left, but lines that do not tell whose."""
    before = contents(path)
    await talk(store, "a", 1, images=["1", "2"], key="once")
    await store.begin(run("b"), [user("b", 4)], [1, 2])
    await store.finish(run("b", "failed"))
    await store.pend(run("c", "cancelled"), [image("3")])
    assert await store.delete(ANN)
    after = contents(path)
    lines = after.pop("runs")
    before.pop("runs")
    assert after == before
    assert [line[:5] for line in lines] == [
        (f"run_{name}", "", "owner", "main", "") for name in "abc"
    ]
    assert await store.transcript(ANN) == Transcript()
    assert await store.session(ANN) is None
    assert (await store.run("run_a")).record.usage == run("a", "finished").usage
    assert not await store.delete(ANN)
    await talk(store, "d", 1, key="once")
    assert (await store.transcript(ANN)).last_seq == 2
    assert (await store.kept("owner", "once")).record.run_id == "run_d"


@pytest.mark.gen_test
async def test_store_deletes_nothing_of_other_sessions(store, path):
    """Another session keeps its rows, and the images that both had sent."""
    other = ANN._replace(agent="beta")
    await talk(store, "b", 1, session=BOB, images=["both", "waits"], key="bob's")
    await store.pend(run("c", "queued", session=other), [image("pended")])
    before = contents(path)
    await talk(store, "a", 1, images=["both", "pended", "ann's"], key="ann's")
    await store.delete(ANN)
    after = contents(path)
    after["runs"] = [line for line in after["runs"] if line[0] != "run_a"]
    assert after == before
    assert [one.message for one in (await store.transcript(BOB)).entries[:2]] == [
        image("both"),
        image("waits"),
    ]


@pytest.mark.gen_test
async def test_store_deletes_a_session_that_never_began(store, path):
    """What a waiting run had sent goes, though its session has no row of its own."""
    await store.pend(run("a", "queued"), [image("1")], key=IdempotencyKey("once", b""))
    await store.finish(run("a", "cancelled"))
    assert await store.delete(ANN)
    left = contents(path)
    assert [table for table in TABLES if left[table]] == ["runs"]


@pytest.mark.gen_test
async def test_store_deletes_in_its_turn(store, path):
    """What was handed over or noted before a delete goes, what comes after stays."""
    with held(path):
        tasks = [
            asyncio.ensure_future(store.begin(run("z", session=BOB), [])),
            asyncio.ensure_future(store.begin(run("a"), [user("a", 1)])),
        ]
        await asyncio.sleep(0)
        store.note(run("b", "failed"))
        tasks.append(asyncio.ensure_future(store.delete(ANN)))
        tasks.append(asyncio.ensure_future(store.begin(run("c"), [user("c", 1)])))
        await asyncio.sleep(0.05)
    assert (await asyncio.gather(*tasks))[2] is True
    assert [one.run_id for one in (await store.transcript(ANN)).entries] == ["run_c"]
    lines = {line.run_id: line.session.key for line in await store.runs(agent="main")}
    assert lines == {
        "run_z": BOB.key,
        "run_a": "",
        "run_b": "",
        "run_c": ANN.key,
    }


@pytest.mark.gen_test
@pytest.mark.parametrize("way", ["locked", "query_only = ON", "no table"])
async def test_store_deletes_all_or_nothing(url, path, way):
    """A delete that fails leaves everything as it was."""
    store = Store(f"{url}?timeout=0.2")
    await store.start([SECRET])
    await talk(store, "a", 1, images=["1"], key="once")
    await store.pend(run("b", "queued"), [image("2")])
    before = contents(path)
    if way == "locked":
        with held(path), pytest.raises(StorageUnavailable):
            await store.delete(ANN)
    elif way == "no table":
        # The last of the steps is refused, when all others are done.
        rows(
            path,
            "CREATE TRIGGER no BEFORE UPDATE ON runs BEGIN "
            "SELECT raise(ABORT, 'no'); END",
        )
        with pytest.raises(Exception, match="refused"):
            await store.delete(ANN)
        rows(path, "DROP TRIGGER no")
    else:
        with obstacle(way), pytest.raises(StorageUnavailable):
            await store.delete(ANN)
    assert contents(path) == before
    assert len((await store.transcript(ANN)).entries) == 2
    assert await store.delete(ANN)
    await store.stop()
