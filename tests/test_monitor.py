"""Who keeps the loop from its work is named, and nobody else."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from edwin.monitor import LoopMonitor

LIMIT_S = 0.05


class Watched:
    """A monitor on the test's loop, and what it said."""

    def __init__(self, give_up_s: float = 5.0) -> None:
        self.lags: list[float] = []
        self.blocks = 0
        self.monitor = LoopMonitor(
            LIMIT_S,
            lag=self.lags.append,
            blocked=self.count,
            give_up_s=give_up_s,
        )

    def count(self) -> None:
        self.blocks += 1

    async def start(self) -> None:
        """Return when the loop has beaten twice."""
        self.monitor.start()
        await self.until(2)

    async def until(self, beats: int) -> None:
        """Return after so many beats."""
        seen = len(self.lags)
        async with asyncio.timeout(5):
            while len(self.lags) < seen + beats:
                await asyncio.sleep(0.01)

    async def blocked(self, times: int) -> None:
        """Return when the monitor has seen so many blocks."""
        async with asyncio.timeout(5):
            while self.blocks < times:
                await asyncio.sleep(0.01)


def hog(seconds: float) -> None:
    """Keep the thread, and with it the loop."""
    time.sleep(seconds)


def monitors() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "edwin-loop-monitor"]


@pytest.fixture
def watched(io_loop: IOLoop) -> Iterator[Watched]:
    """Return a monitor of the test's loop, started."""
    watched = Watched()
    io_loop.run_sync(watched.start)
    yield watched
    watched.monitor.stop()
    assert monitors() == []


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """Return what the monitor logs."""
    handler = Lines()
    logging.getLogger("edwin.monitor").addHandler(handler)
    yield handler.records
    logging.getLogger("edwin.monitor").removeHandler(handler)


@pytest.mark.gen_test
async def test_monitor_names_who_blocks(watched, lines):
    """A call that blocks the loop is logged with its stack and how long it took."""
    hog(0.3)
    await watched.blocked(1)
    (line,) = lines
    assert (line.levelname, line.name) == ("WARNING", "edwin.monitor")
    assert "hog(0.3)" in line.fields["stack"]
    assert 200 <= line.fields["blocked_ms"] < 3000
    assert line.fields["over"]
    assert max(watched.lags) >= 0.25


@pytest.mark.gen_test
async def test_monitor_names_the_task(watched, lines):
    """The line names the task that the loop was at, such as a run and its agent."""

    async def agent() -> None:
        hog(0.3)

    await asyncio.create_task(agent(), name="run_1 100%s")
    await watched.blocked(1)
    (line,) = lines
    assert line.fields["task"] == "run_1 100%s"
    assert line.getMessage().endswith(" ms, by run_1 100%s")


@pytest.mark.gen_test
async def test_monitor_callbacks_are_no_task(watched, lines):
    """What is no task has no name, and is told from its stack."""
    asyncio.get_running_loop().call_soon(hog, 0.3)
    await watched.blocked(1)
    (line,) = lines
    assert line.fields["task"] is None
    assert line.getMessage().endswith(" ms")
    assert "hog" in line.fields["stack"]


@pytest.mark.gen_test
async def test_monitor_does_not_flood_the_log(watched, lines):
    """Of many blocks all are counted and one is logged; the next line says how many
    had none."""
    for times in (1, 2, 3):
        hog(0.15)
        await watched.blocked(times)
        await watched.until(1)
    assert len(lines) == 1
    watched.monitor._logged_at -= 60
    hog(0.15)
    await watched.blocked(4)
    assert [line.fields["untold"] for line in lines] == [0, 2]


@pytest.mark.gen_test
async def test_monitor_tells_of_a_block_that_lasts(lines):
    """A loop that may never come back is told of while it stands."""
    watched = Watched(give_up_s=0.2)
    await watched.start()
    hog(0.6)
    assert [line.fields["over"] for line in lines] == [False]
    assert "so far" in lines[0].getMessage()
    await watched.until(2)
    watched.monitor.stop()
    assert watched.blocks == len(lines) == 1


def test_monitor_loop_that_is_not_run(io_loop, watched, lines):
    """A loop that its owner does not run is not blocked."""
    time.sleep(0.2)
    io_loop.run_sync(lambda: watched.until(2))
    assert (watched.blocks, lines) == (0, [])


@pytest.mark.gen_test
async def test_monitor_starved_loop(lines):
    """A loop that waits for events is not blocked, however late it is."""
    watched = Watched(give_up_s=0.1)
    await watched.start()
    watched.monitor._timer.cancel()
    await asyncio.sleep(0.4)
    watched.monitor.stop()
    assert (watched.blocks, lines) == (0, [])


@pytest.mark.gen_test
async def test_monitor_begins_with_the_first_beat(lines):
    """What keeps the loop before it first comes to the monitor is a start."""
    watched = Watched()
    watched.monitor.start()
    hog(0.2)
    await watched.until(2)
    watched.monitor.stop()
    assert (watched.blocks, lines) == (0, [])


@pytest.mark.gen_test
@pytest.mark.parametrize("blocked_ms", [0, 50])
async def test_monitor_lives_with_the_gateway(make_gateway, blocked_ms):
    """The thread is there from start to stop, unless the monitor is off."""
    config = {"gateway": {"monitor": {"blockedMs": blocked_ms}}}
    served = await make_gateway(config)
    assert len(monitors()) == bool(blocked_ms)
    await served.gateway.stop()
    assert monitors() == []


@pytest.mark.gen_test
async def test_monitor_feeds_the_metrics(served):
    """A gateway's beats and blocks are in its metrics."""
    metrics = served.gateway.metrics
    async with asyncio.timeout(5):
        while not sum(metrics.loop_lag.counts):
            await asyncio.sleep(0.01)
        hog(0.2)
        while not metrics.loop_blocked.values[()]:
            await asyncio.sleep(0.01)
    assert metrics.loop_lag.sum >= 0.15
