"""Work on the writer's thread: its turn, its result, and what is in its way."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert, make_url, select

from edwin.errors import InternalError, StorageUnavailable
from edwin.store import changes, dialect
from edwin.store.tables import meta
from edwin.store.writer import Writer
from tests.store.samples import held, obstacle, rows


@pytest.fixture
def writer(io_loop, store, url):
    """Return a writer of its own, on the started store's database."""

    async def make():
        return Writer(dialect.writer_engine(make_url(f"{url}?timeout=0.2")))

    writer = io_loop.run_sync(make)
    yield writer
    io_loop.run_sync(writer.stop)


def probe(connection):
    """Return the value that the changes before this one left."""
    return connection.execute(select(meta.c.value).where(meta.c.key == "x")).scalar()


def set_to(text):
    return changes.value("x", text)


@pytest.mark.gen_test
async def test_store_does_work_in_its_turn(writer, path):
    """Work sees what was handed over before it, and nothing of what came after."""
    with held(path):
        first = writer.submit([])  # its wait lets the others meet
        writer.later(set_to("noted"))
        calls = [
            writer.call(probe),
            writer.submit(set_to("1")),
            writer.submit(set_to("2")),
            writer.call(probe),
            writer.call(probe),
            writer.submit(set_to("3")),
            writer.call(probe),
        ]
        await asyncio.sleep(0.05)
    await first
    found = await asyncio.gather(*calls)
    assert found == ["noted", None, None, "2", "2", None, "3"]


@pytest.mark.gen_test
async def test_store_undoes_work_that_fails(writer, path):
    """What work wrote before it failed is not there; what was beside it is."""

    def twice(connection):
        row = insert(meta).values(key="y", value="")
        connection.execute(row)
        connection.execute(row)

    with held(path):
        first = writer.submit([])
        calls = [
            writer.submit(set_to("1")),
            writer.call(twice),
            writer.submit(set_to("2")),
            writer.call(probe),
        ]
        await asyncio.sleep(0.05)
    await first
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert (found[0], type(found[1]), *found[2:]) == (None, InternalError, None, "2")
    assert writer.writable
    assert rows(path, "SELECT * FROM meta WHERE key = 'y'") == []


@pytest.mark.gen_test
async def test_store_tells_work_of_a_disk_or_a_lock_in_its_way(writer, path):
    """Work that cannot be done is a 503 like any change, and the next may succeed."""

    def write(connection):
        connection.execute(insert(meta).values(key="y", value="x" * 100_000))

    with held(path), pytest.raises(StorageUnavailable):
        await writer.call(probe)
    assert not writer.writable
    for pragma in ("max_page_count = 1", "query_only = ON"):
        with obstacle(pragma), pytest.raises(StorageUnavailable):
            await writer.call(write)
        assert not writer.writable
    assert await writer.call(write) is None
    assert writer.writable
    assert rows(path, "SELECT length(value) FROM meta WHERE key = 'y'") == [(100_000,)]


@pytest.mark.gen_test
async def test_store_keeps_notes_that_work_could_not_take_along(writer, path):
    """Notes that met an obstacle before some work are written when it is gone."""
    with obstacle("query_only = ON"):
        writer.later(set_to("noted"))
        with pytest.raises(StorageUnavailable):
            await writer.call(lambda connection: connection.execute(insert(meta)))
    assert await writer.call(probe) == "noted"


@pytest.mark.gen_test
async def test_store_does_no_work_after_its_stop(writer):
    """After the stop work is refused; what was handed over before is done."""
    call = writer.call(probe)
    await writer.stop()
    assert await call is None
    with pytest.raises(StorageUnavailable):
        writer.call(probe)


@pytest.mark.gen_test
async def test_store_works_on_when_the_caller_is_cancelled(writer, path):
    """Cancelling who waits for work does not take it back."""

    def write(connection):
        connection.execute(insert(meta).values(key="x", value="done"))

    with held(path):
        call = writer.call(write)
        call.cancel()
    assert await writer.call(probe) == "done"
