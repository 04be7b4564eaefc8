"""What the instruments cost, each timed alone: ``python -m tools.bench.parts``.

Microseconds of CPU, the median of many rounds and the lowest and highest of the middle
half.  The log's lines are made and written, to nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import logging
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edwin import log
from edwin.auth import Authenticator, allow, new_token
from edwin.config import NamedPrincipal, from_document
from edwin.executor import AgentExecutor
from edwin.gateway import Gateway
from edwin.log import JsonFormatter
from edwin.metrics import Metrics
from edwin.monitor import BEAT_S, LoopMonitor
from edwin.quotas import Quotas
from edwin.runs import report
from edwin.runs.run import Run
from edwin.types import (
    OWNER,
    Agent,
    Allowance,
    Delta,
    Event,
    ModelRequest,
    Principal,
    RunRequest,
    SessionId,
    TextDelta,
    TurnFinished,
    Usage,
)

PRINCIPALS = 10_000
AGENT = Agent("main", "instant/x")
LOG_FIELDS = {
    "request_id": "req_0123456789abcdef0123456789abcdef",
    "method": "POST",
    "path": "/v1/chat/completions",
    "remote": "127.0.0.1",
    "principal": "owner",
}


class Instant:
    """A provider that answers at once."""

    name = "instant"
    context_tokens = 100_000
    context_is_known = False
    retries = 0
    retry_seconds = 0.0

    async def stream(
        self, request: ModelRequest
    ) -> AsyncGenerator[Delta | TurnFinished, None]:
        """Yield a piece and the end."""
        yield TextDelta("hello")
        yield TurnFinished("stop", Usage(10, 1))


def request(number: int = 0) -> RunRequest:
    """Return the request of a stateless run."""
    return RunRequest(
        run_id=f"run_{number:032x}",
        agent=AGENT,
        principal=OWNER,
        session=SessionId("owner", "main", f"agent:main:openai:{number}"),
        stateful=False,
        messages=[{"role": "user", "content": "hello"}],
        params={},
        request_id=LOG_FIELDS["request_id"],
        log_fields=LOG_FIELDS,
    )


@dataclass(frozen=True)
class Budget:
    """How much is timed.

    Attributes:
        rounds: How often each part is timed, at least twice.
        times: How often it is done in one of these rounds; what is slow, less often.
        idle_s: For how long the idle loop is watched, five times.

    """

    rounds: int
    times: int
    idle_s: float

    def timed(self, work: Callable[[], Any], *, slow: int = 1) -> list[float]:
        """Return what one call of *work* took in each round, in microseconds of CPU.

        Args:
            work: What is timed.
            slow: By how much less often than usual it is done in a round.

        """
        times = max(1, self.times // slow)
        figures = []
        for _ in range(self.rounds):
            begun = time.thread_time_ns()
            for _ in range(times):
                work()
            figures.append((time.thread_time_ns() - begun) / times / 1000)
        return figures

    async def awaited(self, work: Callable[[], Any]) -> list[float]:
        """Return what one ``await work()`` took in each round, likewise."""
        times = max(1, self.times // 10)
        figures = []
        for _ in range(self.rounds):
            begun = time.thread_time_ns()
            for _ in range(times):
                await work()
            figures.append((time.thread_time_ns() - begun) / times / 1000)
            # The ledger's lines are written meanwhile, by a thread of their own.
            await asyncio.sleep(0)
        return figures


def line(name: str, figure: float) -> None:
    """Print one line that comes of others."""
    print(f"{name:<44} {figure:8.2f} µs", flush=True)


def show(name: str, figures: list[float]) -> float:
    """Print one line; return the median."""
    low, median, high = statistics.quantiles(figures, n=4)
    print(f"{name:<44} {median:8.2f} µs  [{low:.2f} … {high:.2f}]", flush=True)
    return median


class Parts:
    """The parts of a gateway that are timed, and one run that they are timed on.

    Args:
        gateway: A gateway, started.

    """

    def __init__(self, gateway: Gateway) -> None:
        self.metrics = Metrics()
        self.executor = AgentExecutor({"instant": Instant()}, self.metrics)  # type: ignore[dict-item]
        gateway.engine._carrier._executor = self.executor  # type: ignore[attr-defined]
        self.gateway = gateway

    async def run(self) -> Run:
        """Return a run that came to its end, read by one reader."""
        run = await self.gateway.engine.submit(request())
        with run.events() as reader:
            await reader.result()
        return run

    def note(self, run: Run) -> None:
        """Hand the ledger's line of *run* to the store."""
        self.gateway.store.note(run.record())

    async def talk(self) -> list[Event]:
        """Return what the executor alone makes of the same request."""
        events = self.executor.run(AGENT, request().messages, {})
        return [event async for event in events]


async def task() -> None:
    """Wait for a task by a future, as a run's reader does."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    async def work() -> None:
        future.set_result(None)

    made = loop.create_task(work())
    await future
    del made


def count_request(metrics: Metrics) -> None:
    """Count as a handler does."""
    metrics.requests.add("/v1/chat/completions", "POST", 200)


def count_delta(metrics: Metrics) -> None:
    """Count as the carrier does."""
    metrics.deltas += 1


def admit(budget: Budget) -> None:
    """Print what it costs to know one of many principals, and to count its run."""
    scopes = frozenset(("runs:create",))
    limits = Allowance(10**6, 10**6, 10**12)
    tokens, named = [], []
    for number in range(PRINCIPALS):
        token, digest = new_token(f"p{number}")
        tokens.append(token.encode())
        principal = Principal(f"p{number}", scopes, limits=limits)
        named.append(NamedPrincipal(principal, digest))
    auth = Authenticator(from_document({}).gateway.auth, token="a-token-for-tests-only")
    auth.use(named)
    quotas = Quotas()
    places = itertools.cycle(range(0, PRINCIPALS, 7))

    def one() -> None:
        principal, _ = auth.by_secret(tokens[next(places)], "127.0.0.1")
        allow(principal, "runs:create", AGENT)
        now = time.time()
        if not quotas.knows(principal, now):
            quotas.begin_day(principal, now, 0)
        quotas.take(principal, now, 10).settle(20)

    show(f"one of {PRINCIPALS} principals, all of it", budget.timed(one))


async def measure(folder: Path, budget: Budget) -> None:
    """Time every part and print what it took."""
    gateway = Gateway(
        {
            "gateway": {
                "stateDir": str(folder),
                "auth": {"token": "a-token-for-tests-only"},
                "monitor": {"blockedMs": 0},
            }
        }
    )
    await gateway.start()
    try:
        parts = Parts(gateway)
        run = await parts.run()
        metrics, timed = parts.metrics, budget.timed
        total = show("metrics: a run", timed(lambda: report.count(run, metrics)))
        total += show("metrics: a request", timed(lambda: count_request(metrics)))
        show("metrics: a delta", timed(lambda: count_delta(metrics)))
        # As in `edwin gateway`, but into nothing.
        log.setup()
        logging.getLogger().handlers.clear()
        total += show("log line of a run", with_log(run, timed))
        logger = logging.getLogger("edwin.runs")
        logger.disabled = True
        whole = statistics.median(await budget.awaited(parts.run))
        alone = await budget.awaited(parts.talk)
        counted = statistics.median(timed(lambda: report.count(run, metrics)))
        kept = whole - statistics.median(alone) - counted
        bare = statistics.median(await budget.awaited(task))
        line("a run, less executor and metrics", kept)
        line("a task and who waits for it, asyncio's part", bare)
        line("bookkeeping of a run: the difference", kept - bare)
        show("  of it: a Run and its record", timed(lambda: record(run)))
        show("  of it: the ledger's line", timed(lambda: parts.note(run), slow=10))
        line("metrics, log line and bookkeeping together", total + kept - bare)
        show("scrape", timed(gateway.metrics.scrape, slow=40))
        logger.disabled = False
        admit(budget)
        await beat(budget.idle_s)
    finally:
        await gateway.stop()


def with_log(
    run: Run, timed: Callable[[Callable[[], Any]], list[float]]
) -> list[float]:
    """Return what making and writing the line of *run* takes."""
    logger = logging.getLogger("edwin.runs")
    with open("/dev/null", "w") as nowhere:
        handler = logging.StreamHandler(nowhere)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            return timed(lambda: report.write_line(run))
        finally:
            logger.removeHandler(handler)


def record(run: Run) -> None:
    """Make what the engine makes for each run."""
    made = Run(
        run.request,
        deadline=0,
        accept=run._accept,
        deliver=run._deliver,
        stop=run._stop,
    )
    made.record()


async def beat(idle_s: float) -> None:
    """Print what watching an idle loop takes, loop and thread together."""
    for name, on in (("idle process, a second", False), ("the same, watched", True)):
        monitor = LoopMonitor(0.05, lag=Metrics().loop_lag.observe, blocked=bool)
        if on:
            monitor.start()
        figures = []
        for _ in range(5):
            begun = time.process_time_ns()
            await asyncio.sleep(idle_s)
            figures.append((time.process_time_ns() - begun) / 1000 / idle_s)
        show(name, figures)
        if on:
            monitor.stop()
    print(f"  ({1 / BEAT_S:.0f} beats a second)")


def main() -> None:
    """Run the command."""
    budget = options()
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), budget))


def options() -> Budget:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.parts",
        description="Time the instruments, each alone.",
    )
    add = parser.add_argument
    add("--rounds", type=int, default=200, help="how often each is timed (200)")
    add("--times", type=int, default=200, help="how often it is done then (200)")
    add("--idle-seconds", type=float, default=1.0, help="of an idle loop (1)")
    given = parser.parse_args()
    if given.rounds < 2 or given.times < 1 or not given.idle_seconds > 0:
        parser.error("at least two rounds, one time, and some idling")
    return Budget(given.rounds, given.times, given.idle_seconds)


if __name__ == "__main__":
    main()
