"""Group commit, and what happens when the disk, a lock or a defect is in the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, make_url

from edwin.errors import InternalError, StorageUnavailable
from edwin.store import Store, changes, dialect
from edwin.store.writer import MAX_LATER, Writer
from tests.store.samples import (
    ANN,
    BOB,
    SECRET,
    answer,
    held,
    obstacle,
    of,
    python,
    rows,
    run,
    user,
)


@pytest.fixture
def commits() -> Iterator[list[object]]:
    """Return a list that grows with each commit of any engine."""
    seen: list[object] = []
    seen_one = seen.append
    event.listen(Engine, "commit", seen_one)
    yield seen
    event.remove(Engine, "commit", seen_one)


async def behind_a_lock(path, *calls):
    """Start *calls* while a lock holds the writer, so that they meet; return them."""
    with held(path):
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.1)
    return tasks


@pytest.mark.gen_test
async def test_store_commits_what_waits_in_one_transaction(store, path, commits):
    """Changes that wait together for the disk are one transaction."""
    begun = [store.begin(run(str(n)), [user(str(n), n)]) for n in range(1, 21)]
    tasks = await behind_a_lock(path, *begun)
    await asyncio.gather(*tasks)
    # The first may have been on its way alone when the others came.
    assert len(commits) <= 2
    assert len((await store.transcript(ANN)).entries) == 20


@pytest.mark.gen_test
async def test_store_commits_the_others_when_one_is_refused(store, path):
    """A change that is refused takes no other down with it."""
    good = [store.begin(run(str(n)), [user(str(n), n)]) for n in range(1, 6)]
    late = [store.begin(run(str(n)), [user(str(n), n)]) for n in range(6, 9)]
    twice = store.begin(run("twice"), [user("twice", 9), user("twice", 2)])
    tasks = await behind_a_lock(path, *good, twice, *late)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [
        *[type(None)] * 5,
        InternalError,
        *[type(None)] * 3,
    ]
    assert [one.seq for one in (await store.transcript(ANN)).entries] == [*range(1, 9)]
    assert "run_twice" not in {record.run_id for record in await store.runs()}
    assert store.writable


@pytest.mark.gen_test
async def test_store_keeps_the_order_of_one_runs_changes(store, path):
    """A run that begins and ends in one transaction has ended after it."""
    first = run("a", "queued", started_at=None)
    tasks = await behind_a_lock(
        path,
        store.begin(run("z", session=BOB), []),
        store.pend(first, [{"role": "user", "content": "hello"}]),
        store.begin(run("a"), [user("a", 1)]),
        store.finish(run("a", "finished"), [answer("a", 2)]),
        store.begin(run("b", created_at=2000.0), [user("b", 3)], [2]),
    )
    await asyncio.gather(*tasks)
    assert [record.state for record in await store.runs(**of(ANN))] == [
        "running",
        "finished",
    ]
    assert [one.seq for one in (await store.transcript(ANN)).entries] == [1, 3]
    assert rows(path, "SELECT * FROM pending") == []


@pytest.mark.gen_test
async def test_store_writes_on_when_the_caller_is_cancelled(store, path):
    """Cancelling a task that waits for the disk does not take its change back."""
    (task,) = await behind_a_lock(path, store.begin(run("a"), [user("a", 1)]))
    with held(path):
        second = asyncio.ensure_future(store.begin(run("b"), [user("b", 2)]))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
    await task
    await store.begin(run("c"), [user("c", 3)])
    assert [one.seq for one in (await store.transcript(ANN)).entries] == [1, 2, 3]


@pytest.mark.gen_test
async def test_store_tells_of_a_lock_and_recovers(url, path):
    """Locked by another process it answers 503, reads on, and recovers by itself."""
    store = Store(f"{url}?timeout=0.2")
    await store.start([SECRET])
    await store.begin(run("a"), [user("a", 1)])
    other = python(
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n",
        path,
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(StorageUnavailable) as caught:
        await store.begin(run("b"), [user("b", 2)])
    assert caught.value.retry_after_s == 5
    assert not store.writable
    assert [one.seq for one in (await store.transcript(ANN)).entries] == [1]
    other.communicate("")
    await store.begin(run("b"), [user("b", 2)])
    assert store.writable
    assert [one.seq for one in (await store.transcript(ANN)).entries] == [1, 2]
    await store.stop()


@pytest.mark.gen_test
@pytest.mark.parametrize("pragma", ["max_page_count = 1", "query_only = ON"])
async def test_store_tells_of_a_disk_that_takes_nothing(store, pragma):
    """A full or read-only disk is a 503; nothing is half written; later all is well."""
    await store.begin(run("a"), [user("a", 1)])
    with obstacle(pragma):
        results = await asyncio.gather(
            store.begin(run("b"), [user("b", 2), user("b", 3, "x" * 100_000)]),
            store.finish(run("a", "finished"), [answer("a", 4, "x" * 100_000)]),
            return_exceptions=True,
        )
    assert [type(result) for result in results] == [StorageUnavailable] * 2
    assert not store.writable
    found = await store.transcript(ANN)
    assert [one.seq for one in found.entries] == [1]
    assert found.last_state == "running"
    await store.finish(run("a", "finished"), [answer("a", 2, "x" * 100_000)])
    assert store.writable
    assert (await store.transcript(ANN)).last_state == "finished"


@pytest.mark.gen_test
@pytest.mark.parametrize("lines", [0, 2])
async def test_store_finds_out_by_itself_that_it_is_writable(store, lines):
    """After a failed write the store probes the disk: it needs no request to recover.

    Ledger lines that came meanwhile are written then.
    """
    with obstacle("query_only = ON"):
        for number in range(lines):
            store.note(run(str(number), "finished"))
        with pytest.raises(StorageUnavailable):
            await store.begin(run("a"), [user("a", 1)])
        assert not store.writable
    for _ in range(100):
        if store.writable:
            break
        await asyncio.sleep(0.05)
    assert store.writable
    assert len(await store.runs()) == lines


@pytest.mark.gen_test
async def test_store_confirms_nothing_that_a_full_disk_undid(store, path):
    """A disk that fills up amid a group undoes all of it, and all are told."""
    await store.begin(run("a"), [user("a", 1)])
    with obstacle("max_page_count = 1"):
        tasks = await behind_a_lock(
            path,
            store.begin(run("z", session=BOB), []),
            store.begin(run("twice"), [user("twice", 1)]),
            store.begin(run("small"), [user("small", 2)]),
            store.begin(run("big"), [user("big", 3, "x" * 100_000)]),
        )
        results = await asyncio.gather(*tasks[2:], return_exceptions=True)
        await asyncio.wait(tasks)
        assert tasks[1].exception() is not None
        tasks[0].exception()
    assert [type(result) for result in results] == [StorageUnavailable] * 2
    assert [one.seq for one in (await store.transcript(ANN)).entries] == [1]


@pytest.mark.gen_test
async def test_store_says_which_ledger_lines_it_lost(url, caplog):
    """A store that stops while the disk is full tells how many lines are lost."""
    store = Store(url)
    await store.start([SECRET])
    with obstacle("query_only = ON"), caplog.at_level(logging.WARNING):
        store.note(run("a", "finished"))
        store.note_delivered("run_a")
        await store.stop()
        store.note(run("b", "finished"))
    assert [record.getMessage() for record in caplog.records] == [
        "2 ledger lines are lost",
        "a ledger line came after the store's stop and is lost",
    ]


@pytest.mark.gen_test
async def test_store_survives_a_file_that_may_not_grow(tmp_path):
    """When the system refuses the write itself, it is a 503, and nothing is torn."""
    code = """
import asyncio, resource, sys
from edwin.errors import StorageUnavailable
from edwin.store import Store
from tests.store.samples import ANN, SECRET, run, user

async def main():
    store = Store(sys.argv[1])
    await store.start([SECRET])
    await store.begin(run("a"), [user("a", 1)])
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        await store.begin(run("b"), [user("b", 2, "x" * 1_000_000)])
    except StorageUnavailable:
        print("unavailable", store.writable)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.begin(run("b"), [user("b", 3, "x" * 1_000_000)])
    print([entry.seq for entry in (await store.transcript(ANN)).entries])
    await store.stop()

asyncio.run(main())
"""
    process = python(code, f"sqlite:///{tmp_path}/edwin.db")
    out, _ = await asyncio.to_thread(process.communicate)
    assert out == "unavailable False\n[1, 3]\n"


@pytest.mark.gen_test
async def test_store_forgets_what_is_written(store, url):
    """What is noted is remembered only until it is written."""
    writer = Writer(dialect.writer_engine(make_url(url)))
    noted = {"run_a"}
    writer.later(changes.deliver("run_a"), settled=noted.clear)
    await asyncio.sleep(0)
    assert noted
    await writer.submit([])
    assert not noted
    await writer.stop()


@pytest.mark.gen_test
async def test_store_says_which_ledger_line_it_cannot_write(store, caplog):
    """A ledger line that is refused is told in the log; the others are written."""
    with caplog.at_level(logging.WARNING):
        store.note(run("a", "finished"))
        store.note(run("b", "finished", error_code="\ud800"))
        await store.begin(run("c", created_at=2000.0), [])
    assert [record.run_id for record in await store.runs()] == ["run_c", "run_a"]
    assert [record.getMessage() for record in caplog.records] == [
        "a change nobody waits for failed"
    ]


@pytest.mark.gen_test
async def test_store_keeps_a_bounded_number_of_ledger_lines(url, path, caplog):
    """While the disk takes nothing the newest ledger lines are kept, within reason."""
    store = Store(url)
    await store.start([SECRET])
    with obstacle("query_only = ON"), caplog.at_level(logging.WARNING):
        with pytest.raises(StorageUnavailable):
            await store.begin(run("a"), [])
        for number in range(MAX_LATER + 3):
            store.note(run(str(number), "finished", created_at=float(number)))
        while not caplog.records:
            await asyncio.sleep(0.05)
    await store.stop()
    assert "3 ledger lines are lost" in caplog.text
    assert rows(path, "SELECT count(*), min(created_at) FROM runs") == [
        (MAX_LATER, 3.0)
    ]


@pytest.mark.gen_test
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_store_leaves_nobody_waiting_for_a_writer_that_died(store, url):
    """Should a defect end the writer's thread, whoever waits is told."""
    writer = Writer(dialect.writer_engine(make_url(url)))
    waiting = [writer.submit([(99, ())]) for _ in range(10)]
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [InternalError] * 10
    with pytest.raises(StorageUnavailable):
        await writer.submit([])
    await writer.stop()
