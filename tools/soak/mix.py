"""Mixed load for some minutes: does anything grow, is any answer wrong?"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tools.soak import growth
from tools.soak.callers import Callers
from tools.soak.gauges import Gauges
from tools.soak.growth import IDLE_MORE, MAX_MESSAGES, MESSAGES_MORE, Sample, Stored
from tools.soak.guest import (
    KINDS,
    MAX_CONCURRENT,
    MAX_QUEUED,
    MAX_QUEUED_PER_SESSION,
    Guest,
    Load,
    RefusedError,
    WrongError,
)
from tools.soak.house import Call, House
from tools.soak.report import Report

GUESTS, TALKS = 24, 8
PAUSE_S = 0.2
# No single thing takes longer.
PATIENCE_S = 60.0
# The gateway clears its store up once a minute.  It looks as often for connections to
# its provider that were idle for a minute, so that the last go after two.  A load
# shorter than LONG_S is not followed by that wait.
SETTLED_S, REST_S, LONG_S = 130.0, 10.0, 120.0
SETTINGS = {
    "http": {"headDelayMs": 500},
    "runs": {
        "maxConcurrent": MAX_CONCURRENT,
        "maxQueued": MAX_QUEUED,
        "maxQueuedPerSession": MAX_QUEUED_PER_SESSION,
        # Who comes back finds the run, on however slow a machine.
        "graceSeconds": 20,
    },
    "sessions": {"maxMessages": MAX_MESSAGES},
}


class Closes:
    """How soon the provider saw that an answer was given up.

    Attributes:
        seconds: Each time, from the client's leaving to the provider's noticing.
        faults: Answers that went on for nobody.

    """

    def __init__(self, left: dict[str, float]) -> None:
        self.seconds: list[float] = []
        self.faults: list[str] = []
        self._left = left

    def note(self, calls: Sequence[Call]) -> None:
        """Take in calls that have ended."""
        for call in calls:
            left_at = self._left.pop(call.name, None)
            if left_at is None:
                continue
            if call.closed_at is None:
                self.faults.append(f"{call.name} went on when its client had left")
            else:
                self.seconds.append(call.closed_at - left_at)

    def row(self, percent: int) -> str:
        """Return a percentile, in milliseconds."""
        ordered = sorted(self.seconds)
        if not ordered:
            return "-"
        place = min(len(ordered) - 1, len(ordered) * percent // 100)
        return f"{ordered[place] * 1000:.1f} ms"


async def run(
    folder: Path, minutes: float, seed: int, *, series: Path | None = None
) -> Report:
    """Put a gateway under mixed load for *minutes*; return what came of it.

    Args:
        folder: An empty folder.
        minutes: Of load.
        seed: Of all that is chosen.
        series: Where to write what was seen over time, as lines of JSON; None: nowhere.

    """
    seconds = minutes * 60
    faults: list[str] = []
    with House(folder, SETTINGS) as house:
        async with Callers(house.url) as looker:
            gauges = Gauges(house, looker)
            idle, stored = await gauges.sample(), [gauges.stored()]
            async with Callers(house.url) as callers:
                load = Load(callers)
                closes = Closes(load.left)
                until = time.monotonic() + seconds
                guests = asyncio.gather(
                    *(
                        _be(load, number, seed, until, faults)
                        for number in range(GUESTS)
                    )
                )
                samples = await _watch(house, gauges, seconds, closes, stored)
                await guests
            settled = seconds >= LONG_S
            rest = await _rest(gauges, idle, settled=settled)
            stored.append(await _stored(gauges, settled=settled))
        ended, left_open = house.calls()
        closes.note(ended)
        if left_open:
            faults.append(f"the provider still answers {left_open}")
        if series is not None:
            lines = (json.dumps(sample._asdict()) for sample in (*samples, rest))
            series.write_text("\n".join(lines) + "\n", "ascii")
        report = growth.judge(idle, samples, rest, stored, settled=settled)
        faults += [*report.faults, *closes.faults, *house.faults()]
    counts = [(name, "", "", "", str(n)) for name, n in sorted(load.counts.items())]
    rows = [*report.rows, *counts]
    rows.append(("answers given up", "", "", "", str(len(closes.seconds))))
    for percent in (50, 99):
        name = f"until the provider sees it, p{percent}"
        rows.append((name, "", "", "", closes.row(percent)))
    return Report(rows, faults, report.head)


async def _be(
    load: Load, number: int, seed: int, until: float, faults: list[str]
) -> None:
    """Be one guest until it is time."""
    rng = random.Random(f"{seed} {number}")
    guest = Guest(load, f"g{number}", rng, talks=TALKS)
    kinds, weights = list(KINDS), list(KINDS.values())
    while time.monotonic() < until:
        (kind,) = rng.choices(kinds, weights)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await kind(guest)
        except RefusedError:
            load.counts["refused in a burst"] += 1
        except (WrongError, TimeoutError, aiohttp.ClientError) as error:
            faults.append(f"{kind.__name__}: {error!r}")
        await asyncio.sleep(rng.uniform(0, PAUSE_S))


async def _watch(
    house: House, gauges: Gauges, seconds: float, closes: Closes, stored: list[Stored]
) -> list[Sample]:
    """Look at the gateway at even times, and at its store after a third of them."""
    count = max(12, min(240, int(seconds)))
    samples = []
    gauges.begin()
    began = time.monotonic()
    for number in range(1, count + 1):
        await asyncio.sleep(began + seconds * number / count - time.monotonic())
        samples.append(await gauges.sample())
        closes.note(house.calls()[0])
        if number == count // 3:
            stored.append(await asyncio.to_thread(gauges.stored))
    return samples


async def _rest(gauges: Gauges, idle: Sample, *, settled: bool) -> Sample:
    """Return what the gateway holds when nobody wants anything any more."""
    until = time.monotonic() + (SETTLED_S if settled else REST_S)
    while True:
        sample = await gauges.sample()
        held = sample.descriptors if settled else sample.own_descriptors
        rests = not sample.runs and held <= idle.descriptors + IDLE_MORE
        if rests or time.monotonic() > until:
            return sample
        await asyncio.sleep(0.25)


async def _stored(gauges: Gauges, *, settled: bool) -> Stored:
    """Return what the store holds, when it has been cleared up."""
    until = time.monotonic() + (SETTLED_S if settled else 0)
    while True:
        stored = gauges.stored()
        cleared = stored.most_messages <= MAX_MESSAGES + MESSAGES_MORE
        if cleared or time.monotonic() > until:
            return stored
        await asyncio.sleep(1)
