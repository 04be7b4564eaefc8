"""How soon the provider sees that an answer was given up, with 200 under way."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tools.bench.processes import BenchError
from tools.soak.callers import Answer, Callers, document
from tools.soak.house import Call, House
from tools.soak.report import Report
from tools.soak.script import Prompt

RUNS = 200
# The provider would send the next piece a second after the last.
GAP_MS = 1000
# Over how many seconds they give up.
MANNERS = {"one by one": 1.0, "at once": 0.0}
PATIENCE_S = 30.0
WAYS = ("whole, leave", "whole, cancel", "streamed, leave", "streamed, cancel")


class Caller:
    """A client that gives its answer up.

    Args:
        callers: Make the calls.
        name: No other has it.
        way: One of :data:`WAYS`.

    Attributes:
        left_at: When it did so, unix seconds.
        answer: As far as it came.

    """

    def __init__(self, callers: Callers, name: str, way: str) -> None:
        self.name = name
        self.way = way
        self.left_at = 0.0
        self.answer = Answer()
        self._callers = callers
        self._key = f"agent:main:{name}"
        prompt = Prompt(name, 60, GAP_MS)
        self._call = asyncio.create_task(
            callers.chat(
                document(prompt, stream=way.startswith("streamed")),
                session_key=self._key,
                into=self.answer,
            )
        )

    async def give_up(self) -> None:
        """Leave, or have the run cancelled; return when that is through."""
        if self.way.endswith("leave"):
            self.left_at = time.time()
            self._call.cancel()
            with suppress(asyncio.CancelledError):
                await self._call
            return
        listed = await self._callers.fetch("GET", f"/v1/runs?session={self._key}")
        (run,) = listed.body["data"]
        self.left_at = time.time()
        await self._callers.fetch("POST", f"/v1/runs/{run['id']}/cancel")
        await self._call

    def faults(self, call: Call | None) -> Iterator[str]:
        """Yield what is wrong with the provider's *call*."""
        if call is None or call.closed_at is None:
            yield f"{self.name} ({self.way}) went on: {call}"
        if self.way.endswith("cancel") and self.answer.code != "run_cancelled":
            yield f"{self.name} ({self.way}) came to {self.answer}"


async def run(folder: Path, rounds: int, seed: int) -> Report:
    """Give up answers of 200 that are under way; return how soon that was seen."""
    rng = random.Random(seed)
    seconds: dict[tuple[str, str], list[float]] = {}
    faults: list[str] = []
    with House(folder, {"runs": {"maxConcurrent": RUNS}}) as house:
        async with Callers(house.url) as callers:
            for number in range(rounds):
                for manner, spread_s in MANNERS.items():
                    made = await _under_way(house, callers, f"r{number}-{spread_s:g}")
                    calls = await _given_up(house, made, rng, spread_s)
                    for caller in made:
                        call = calls.get(caller.name)
                        faults += caller.faults(call)
                        if call is not None and call.closed_at is not None:
                            late_s = call.closed_at - caller.left_at
                            seconds.setdefault((caller.way, manner), []).append(late_s)
        faults += house.faults()
    rows = [
        (way, manner, str(len(times)), *(_ms(times, p) for p in (50, 99, 100)))
        for (way, manner), times in sorted(seconds.items())
    ]
    for manner in MANNERS:
        times = [s for (_, m), some in seconds.items() if m == manner for s in some]
        late = sum(late_s >= GAP_MS / 1000 for late_s in times)
        if late > len(times) // 100:
            faults.append(f"{late} of {len(times)} were closed too late ({manner})")
        rows.append(
            ("all", manner, str(len(times)), *(_ms(times, p) for p in (50, 99, 100)))
        )
    head = (f"{RUNS} under way, closed after", "", "times", "p50", "p99", "longest")
    return Report(rows, faults, head)


async def _under_way(house: House, callers: Callers, name: str) -> list[Caller]:
    """Return clients whose answers are all under way."""
    made = [Caller(callers, f"{name}-{n}", WAYS[n % len(WAYS)]) for n in range(RUNS)]
    until = time.monotonic() + PATIENCE_S
    while len(house.calls()[1]) < RUNS:
        if time.monotonic() > until:
            raise BenchError(f"{RUNS} answers do not come under way")
        await asyncio.sleep(0.1)
    # The last heads are on their way.
    await asyncio.sleep(0.5)
    return made


async def _given_up(
    house: House, made: list[Caller], rng: random.Random, spread_s: float
) -> dict[str, Call]:
    """Let all give up; return what the provider saw of it."""

    async def give_up(caller: Caller) -> None:
        await asyncio.sleep(rng.uniform(0, spread_s))
        await caller.give_up()

    await asyncio.gather(*map(give_up, made))
    ended: dict[str, Call] = {}
    until = time.monotonic() + PATIENCE_S
    while len(ended) < len(made) and time.monotonic() < until:
        await asyncio.sleep(0.1)
        ended |= {call.name: call for call in house.calls()[0]}
    return ended


def _ms(seconds: list[float], percent: int) -> str:
    """Return a percentile of *seconds*, in milliseconds."""
    ordered = sorted(seconds) or [math.nan]
    place = min(len(ordered) - 1, len(ordered) * percent // 100)
    return f"{ordered[place] * 1000:.1f} ms"
