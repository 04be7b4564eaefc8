"""What a measure is, and what it is taken on; the words of the other modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tools.bench.processes import Helper, Server

FLOOR_A, EDWIN, FLOOR_B = "floor A", "edwin", "floor B"
PATIENCE_S = 60.0
# The share of the time it wanted to run in which the server's core was another's.
WAITED = "server kept waiting"
SERVER_BUSY = "server busy"
LOAD_BUSY = "load busy"

Sample = Mapping[str, float]
"""Figures of one server, by name."""

Round = Mapping[str, Sample]
"""Samples of all servers, side by side in time."""


@dataclass(frozen=True)
class Figure:
    """One number of a measure.

    Attributes:
        name: As in the table and the JSON.
        unit: What it is in.
        decides: Whether the floor's figure against itself decides if the run counts.
        gated: What the gate has a limit on: the ratio to the floor, or what is added.

    """

    name: str
    unit: str
    decides: bool = False
    gated: Literal["ratio", "added"] = "ratio"


class Stage(Protocol):
    """What a measure is taken on."""

    load: Helper
    upstream: Helper
    seconds: float

    def server(self, kind: str) -> Server:
        """Return the server of this *kind* that stays for the whole run."""
        ...

    def foreign(self, kind: str) -> bool:
        """Return whether this *kind* of server is of another make."""
        ...

    def fresh(self, kind: str) -> Server:
        """Start one more server of this *kind*; who asks ends it."""
        ...


class Measure(Protocol):
    """Something to measure."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        ...

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures that are shown."""
        ...

    @property
    def foreign(self) -> bool:
        """Whether servers of another make can be measured with it too."""
        ...

    def take(self, stage: Stage, kinds: Sequence[str]) -> Round:
        """Return one round over the servers of these *kinds*, in this order."""
        ...
