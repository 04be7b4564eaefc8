"""Figures compared: Edwin with the floor, and the floor with itself; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tools.bench.figures import (
    EDWIN,
    FLOOR_A,
    FLOOR_B,
    LOAD_BUSY,
    WAITED,
    Figure,
    Round,
)

ITSELF = (0.93, 1.07)
ENOUGH_ROUNDS = 6
TOO_BUSY = 0.85


@dataclass(frozen=True)
class Spread:
    """The middle of several values, and how far they lie apart."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of *values*, of which there is at least one."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of one measure, over all rounds.

    Attributes:
        floor: Of both floors.
        ratio: Edwin's over the mean of the two floors beside it in time.
        added: Edwin's less that mean.
        itself: The first floor's over the second's.

    """

    measure: str
    figure: Figure
    floor: Spread
    edwin: Spread
    ratio: Spread
    added: Spread
    itself: Spread

    @property
    def sound(self) -> bool:
        """Whether the floor, measured twice, came out the same."""
        low, high = ITSELF
        return not self.figure.decides or low <= self.itself.median <= high


@dataclass(frozen=True, kw_only=True)
class PeerRow:
    """One figure of one measure, of what is measured beside Edwin.

    Attributes:
        floor: Of both floors.
        edwin: Edwin's.
        peer: Of the one beside it.
        ratio: The peer's over the mean of the two floors beside it in time.
        beside: The peer's over Edwin's; of a variant of Edwin, Edwin's over it.
        itself: The first floor's over the second's.

    """

    measure: str
    figure: Figure
    floor: Spread
    edwin: Spread
    peer: Spread
    ratio: Spread
    beside: Spread
    itself: Spread


def compare_peer(
    measure: str, figure: Figure, rounds: Sequence[Round], peer: str, *, variant: bool
) -> PeerRow:
    """Return *figure* of *measure* over *rounds*, as *peer* has it.

    Args:
        measure: Its name.
        figure: Which one; every sample of *peer* has it.
        rounds: All of them.
        peer: What is compared.
        variant: Whether it is a variant of Edwin.

    """
    edwin = compare(measure, figure, rounds)
    as_edwin = [{**taken, EDWIN: taken[peer]} for taken in rounds]
    row = compare(measure, figure, as_edwin)
    pairs = [(t[peer][figure.name], t[EDWIN][figure.name]) for t in rounds]
    return PeerRow(
        measure=measure,
        figure=figure,
        floor=row.floor,
        edwin=edwin.edwin,
        peer=row.edwin,
        ratio=row.ratio,
        beside=Spread.of([b / a if variant else a / b for a, b in pairs]),
        itself=row.itself,
    )


def compare(measure: str, figure: Figure, rounds: Sequence[Round]) -> Row:
    """Return *figure* of *measure* over *rounds*."""
    name = figure.name
    a = [taken[FLOOR_A][name] for taken in rounds]
    b = [taken[FLOOR_B][name] for taken in rounds]
    edwin = [taken[EDWIN][name] for taken in rounds]
    floor = [(one + other) / 2 for one, other in zip(a, b, strict=True)]
    pairs = list(zip(edwin, floor, strict=True))
    return Row(
        measure=measure,
        figure=figure,
        floor=Spread.of(a + b),
        edwin=Spread.of(edwin),
        ratio=Spread.of([mine / base for mine, base in pairs]),
        added=Spread.of([mine - base for mine, base in pairs]),
        itself=Spread.of([one / other for one, other in zip(a, b, strict=True)]),
    )


def disturbed(taken: Round) -> float:
    """Return how much of the time a floor wanted to run somebody else had its core.

    Edwin's threads wait for each other, so its own share says nothing.
    """
    return max(taken[kind].get(WAITED, 0.0) for kind in (FLOOR_A, FLOOR_B))


def faults(rows: Sequence[Row], taken: Mapping[str, Sequence[Round]]) -> list[str]:
    """Return why the run does not count; nothing if it does.

    Args:
        rows: The figures.
        taken: The rounds of each measure.

    """
    low, high = ITSELF
    found = [
        f"{row.measure}: {row.figure.name} of the floor against itself is "
        f"{row.itself.median:.3f}, not {low} to {high}"
        for row in rows
        if not row.sound
    ]
    for measure, rounds in taken.items():
        shares = [s.get(LOAD_BUSY, 0.0) for turn in rounds for s in turn.values()]
        if median(shares) > TOO_BUSY:
            found.append(
                f"{measure}: load and upstream were busy {median(shares):.0%} of the "
                "time, so they and not the servers may have set the pace"
            )
    return found
