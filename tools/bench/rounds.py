"""The rounds: floor, Edwin, its peers and floor again, one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Self

from tools.bench import processes
from tools.bench.figures import EDWIN, FLOOR_A, FLOOR_B, Measure, Round
from tools.bench.peers import Peer
from tools.bench.processes import START_S, Cores, Helper, Server
from tools.bench.results import disturbed

KINDS = (FLOOR_A, EDWIN, FLOOR_B)
CALM = 0.05


class Stage:
    """All processes of a run, and the folder they live in; see ``figures.Stage``.

    Args:
        seconds: How long a server has the load in one round of most measures.
        peers: What is measured beside Edwin, by name.

    """

    def __init__(
        self, *, seconds: float, peers: Mapping[str, Peer] = MappingProxyType({})
    ) -> None:
        self.seconds = seconds
        self._peers = peers
        self.cores = Cores()
        self._stack = ExitStack()
        self._made = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        enter = self._stack.enter_context
        self._folder = Path(enter(TemporaryDirectory(prefix="edwin-bench-")))
        enter(_on(self.cores.rest))
        rest = self.cores.rest
        self.upstream = enter(
            Helper("upstream", cores=rest, folder=self._folder / "upstream")
        )
        self._url = f"http://127.0.0.1:{self.upstream.line(START_S)}/v1"
        self.load = enter(Helper("load", cores=rest, folder=self._folder / "load"))
        self._servers = {
            kind: enter(self.fresh(kind)) for kind in (*KINDS, *self._peers)
        }

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def server(self, kind: str) -> Server:
        """Return the server of this *kind* that stays for the whole run."""
        return self._servers[kind]

    def fresh(self, kind: str) -> Server:
        """Start one more server of this *kind*; who asks ends it."""
        self._made += 1
        folder = self._folder / f"{kind.replace(' ', '-')}-{self._made}"
        start = processes.edwin if kind == EDWIN else processes.floor
        if kind in self._peers:
            start = self._peers[kind].start
        return start(self._url, cores=self.cores.servers, folder=folder)

    def foreign(self, kind: str) -> bool:
        """Return whether this *kind* of server is of another make."""
        return kind in self._peers and not self._peers[kind].edwin

    def kinds(self, measure: Measure) -> Sequence[str]:
        """Return what *measure* is taken on, in order."""
        peers = [
            kind for kind in self._peers if measure.foreign or not self.foreign(kind)
        ]
        return (FLOOR_A, EDWIN, *peers, FLOOR_B)


def take(
    measure: Measure,
    stage: Stage,
    rounds: int,
    tell: Callable[[str], None],
    *,
    tries: int = 1,
) -> list[Round]:
    """Return *rounds* rounds of *measure*.

    Edwin, with what is measured beside it, always stands between the two floors, which
    change places each time: what drifts, drifts out of the ratios.  A round in which
    somebody else kept a floor from running is taken again, until *tries* times as many
    are taken as are wanted; then the least disturbed are returned.  What the figures
    are plays no part in it.
    """
    kinds = stage.kinds(measure)
    taken: list[Round] = []
    calm = 0
    while calm < rounds and len(taken) < rounds * tries:
        tell(f"{measure.name}: round {calm + 1} of {rounds}, taken {len(taken)}")
        taken.append(measure.take(stage, kinds if len(taken) % 2 == 0 else kinds[::-1]))
        calm += disturbed(taken[-1]) <= CALM
    return sorted(taken, key=disturbed)[:rounds]


@contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    """Keep this process on *cores*."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
