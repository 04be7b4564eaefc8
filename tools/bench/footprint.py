"""Measures of a process: its start, its memory, and what a silent stream adds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tools.bench.answers import Answer
from tools.bench.figures import PATIENCE_S, Figure, Round, Sample, Stage
from tools.bench.load import Job
from tools.bench.processes import Server
from tools.bench.question import request

CONNECTIONS = 8
# A little under the 256 runs that a gateway carries at once by default.
STREAMS = 200

START = Figure("exec to first 200", "ms")
IDLE = Figure("resident, idle", "MB")
STREAM = Figure("silent stream", "KiB", decides=True, gated="added")


@dataclass(frozen=True)
class Footprint:
    """Fresh processes, one after another.

    Attributes:
        name: As on the command line.
        figures: What of it is shown.
        foreign: Whether servers of another make can be measured with it too.

    """

    name: str = "process"
    figures: tuple[Figure, ...] = (START, IDLE, STREAM)
    foreign: bool = True

    def take(self, stage: Stage, kinds: Sequence[str]) -> Round:
        """Return one round, each server with a process of its own.

        A server of another make has no silent streams.
        """
        return {kind: self._take(stage, kind) for kind in kinds}

    def _take(self, stage: Stage, kind: str) -> Sample:
        with stage.fresh(kind) as server:
            _open(stage, server, "warm", CONNECTIONS, Answer(deltas=10))
            sample = {
                START.name: server.start_s * 1000,
                IDLE.name: server.memory()["Rss"] / 1e6,
            }
            names = ["warm"]
            if not stage.foreign(kind):
                sample[STREAM.name] = _streams(stage, server) / 1024
                names += ["first", "streams"]
            for name in names:
                command = {"do": "close", "name": name}
                stage.load.ask(command, patience_s=PATIENCE_S)
            return sample


def _streams(stage: Stage, server: Server) -> float:
    """Open silent streams; return how many bytes each of them added."""
    quiet = Answer(deltas=1, gap_s=0.0, silent=True)
    # What is made for the first streams only is not counted.
    _open(stage, server, "first", CONNECTIONS, quiet)
    before = server.memory()["Anonymous"]
    _open(stage, server, "streams", STREAMS, quiet)
    return (server.memory()["Anonymous"] - before) / STREAMS


def _open(
    stage: Stage, server: Server, name: str, connections: int, answer: Answer
) -> None:
    """Open *connections* that get *answer*, and wait until the server rests."""
    stage.upstream.ask(asdict(answer), patience_s=PATIENCE_S)
    job = Job(
        port=server.port,
        request=request(server.port, stream=answer.silent),
        connections=connections,
        deltas=answer.deltas,
        silent=answer.silent,
    )
    command = {"do": "open", "name": name} | asdict(job)
    stage.load.ask(command, patience_s=PATIENCE_S)
    time.sleep(server.settle_s)
