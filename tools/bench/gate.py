"""The gate: measures held to the limits of ``limits.json``.

A limit is on a ratio to the floor, or on what is added to it, and never on a time: it
holds on any machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.bench.figures import Measure, Round
from tools.bench.measures import GATE
from tools.bench.processes import BenchError
from tools.bench.results import Row, Spread, compare, faults

LIMITS = Path(__file__).with_name("limits.json")
# How often a measure is taken again because the floor differed from itself.
RETAKES = 3

Limits = Mapping[str, Mapping[str, float]]
"""What may not be exceeded, by measure and by figure."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a measure.

    Attributes:
        verdict: ``within`` its limits, ``over`` one of them twice, or ``void`` each
            time it was taken.
        rows: The figures, taken last, each with its limit.
        rounds: The rounds that they are of.
        faults: Why those rounds do not count.
        takes: How often it was taken.

    """

    measure: str
    verdict: str
    rows: Sequence[tuple[Row, float]]
    rounds: Sequence[Round]
    faults: Sequence[str]
    takes: int


def load(path: Path = LIMITS) -> Limits:
    """Return the limits that stand in *path*.

    Raises:
        BenchError: If they are not those of the gate's measures and figures, each a
            positive number.

    """
    limits: Limits = json.loads(path.read_text("utf-8"))
    for measure, figure in sorted(_pairs(GATE) ^ _pairs(limits)):
        missing = figure in GATE.get(measure, ())
        raise BenchError(
            f"{path.name} has no limit for {measure}: {figure}"
            if missing
            else f"{path.name}: the gate has no figure {measure}: {figure}"
        )
    for measure, figure in sorted(_pairs(limits)):
        limit = limits[measure][figure]
        if not isinstance(limit, int | float) or not limit > 0:
            raise BenchError(f"{path.name}: {measure}: {figure} is not above 0")
    return limits


def gated(row: Row) -> Spread:
    """Return what of *row* its limit is on."""
    return row.added if row.figure.gated == "added" else row.ratio


def hold(
    measure: Measure,
    limits: Mapping[str, float],
    take: Callable[[], Sequence[Round]],
) -> Outcome:
    """Take *measure* until it is known whether it is within *limits*.

    Rounds that are void are taken again, :data:`RETAKES` times at most.  What is over a
    limit is taken once more: only what is over it in fresh rounds too stays over.

    Args:
        measure: What is measured.
        limits: Its limits, by figure.
        take: Returns rounds of it, fresh ones each time.

    """
    figures = [figure for figure in measure.figures if figure.name in limits]
    takes = void = over = 0
    while True:
        takes += 1
        rounds = take()
        rows = [compare(measure.name, figure, rounds) for figure in figures]
        found = faults(rows, {measure.name: rounds})
        if found:
            verdict, again = "void", void < RETAKES
            void += 1
        elif any(gated(row).median > limits[row.figure.name] for row in rows):
            verdict, again = "over", over < 1
            over += 1
        else:
            verdict, again = "within", False
        if again:
            continue
        return Outcome(
            measure=measure.name,
            verdict=verdict,
            rows=[(row, limits[row.figure.name]) for row in rows],
            rounds=rounds,
            faults=found,
            takes=takes,
        )


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return 1 if a measure is over its limit, else 3 if one is void, else 0."""
    verdicts = {outcome.verdict for outcome in outcomes}
    return 1 if "over" in verdicts else 3 if "void" in verdicts else 0


def _pairs(
    table: Mapping[str, Mapping[str, float]] | Mapping[str, Sequence[str]],
) -> set[tuple[str, str]]:
    return {(measure, figure) for measure in table for figure in table[measure]}
