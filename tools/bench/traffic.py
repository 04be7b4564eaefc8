"""Measures of requests: what one costs, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from tools.bench.answers import Answer
from tools.bench.figures import (
    FLOOR_A,
    FLOOR_B,
    LOAD_BUSY,
    PATIENCE_S,
    SERVER_BUSY,
    WAITED,
    Figure,
    Round,
    Sample,
    Stage,
)
from tools.bench.load import USER, Job
from tools.bench.question import conversation, request
from tools.bench.refusals import Refusal

CPU_REQUEST = Figure("CPU per request", "µs", decides=True)
CPU_DELTA = Figure("CPU per delta", "µs", decides=True)
P50 = Figure("latency p50", "ms")
P99 = Figure("latency p99", "ms")
FIRST = Figure("first delta p50", "ms")
_FLOORS = (FLOOR_A, FLOOR_B)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests from some connections for some seconds.

    The seconds are cut into slices that the servers get in turn: what disturbs a
    machine lasts longer than a slice, and so concerns them all.

    Attributes:
        name: As on the command line.
        figures: What of it is shown.
        connections: How many requests are under way at any time.
        answer: How the upstream answers.
        stream: Whether the client wants a stream.
        turns: Requests in a conversation, each with a user of its own; 0: no user.
        messages: How many a request has; 1: the question alone.
        refusal: How the gateway refuses, while the floor answers the same question;
            None: it does not.
        foreign: Whether servers of another make can be measured with it too.
        spread_s: Seconds over which the connections begin.
        slices: How many slices a server gets.
        slice: What part of the run's seconds one lasts.

    """

    name: str
    figures: tuple[Figure, ...]
    connections: int
    answer: Answer
    stream: bool = False
    turns: int = 0
    messages: int = 1
    refusal: Refusal | None = None
    foreign: bool = False
    spread_s: float = 0.0
    slices: int = 10
    slice: float = 0.1

    def take(self, stage: Stage, kinds: Sequence[str]) -> Round:
        """Return one round: the figures, and how busy everybody was."""
        # Nobody had this user before, in whatever state the last round left things.
        user = uuid4().hex
        refusing = [kind for kind in kinds if self.refusal and kind not in _FLOORS]
        held = (
            self.refusal.kept_up(stage, refusing, user)
            if self.refusal
            else nullcontext()
        )
        with held:
            stage.upstream.ask(asdict(self.answer), patience_s=PATIENCE_S)
            tallies = {
                kind: _Tally(stage, kind, self, self._job(stage, kind, user))
                for kind in kinds
            }
            seconds = stage.seconds * self.slice
            for turn in range(self.slices):
                for kind in kinds if turn % 2 == 0 else reversed(kinds):
                    tallies[kind].run(seconds)
            time.sleep(max(stage.server(kind).settle_s for kind in kinds))
            return {kind: tally.close() for kind, tally in tallies.items()}

    def _job(self, stage: Stage, kind: str, user: str) -> Job:
        """Return what the load is to do with the server of this *kind*."""
        port = stage.server(kind).port
        if self.refusal and kind not in _FLOORS:
            return self.refusal.job(port, self.connections, user)
        fields: dict[str, Any] = {}
        if self.turns:
            fields["user"] = USER
        if self.messages > 1:
            fields["messages"] = conversation(self.messages)
        return Job(
            port=port,
            request=request(port, stream=self.stream, **fields),
            connections=self.connections,
            deltas=self.answer.deltas,
            turns=self.turns or 1,
            spread_s=self.spread_s,
        )


class _Tally:
    """What the slices of one server add up to.

    Its CPU is counted from before the first slice until all work is done after the
    last: what it does for its requests while the others have their slices is its own.
    """

    def __init__(self, stage: Stage, kind: str, traffic: Traffic, job: Job) -> None:
        self._stage, self._kind, self._traffic = stage, kind, traffic
        self._server = stage.server(kind)
        self._ask("open", asdict(job))
        self._began_s = self._server.cpu_s()
        self._requests = self._wall_s = self._busy_s = 0.0
        self._load_s = self._waited_s = 0.0

    def run(self, seconds: float) -> None:
        """Let the load run for one slice."""
        server, upstream = self._server, self._stage.upstream
        busy_s, waited_s = server.cpu_s(), server.waited_s()
        upstream_s = upstream.cpu_s()
        said = self._ask("run", {"seconds": seconds})
        self._busy_s += server.cpu_s() - busy_s
        self._waited_s += server.waited_s() - waited_s
        self._load_s += said["cpu_s"] + upstream.cpu_s() - upstream_s
        self._wall_s += said["wall_s"]
        self._requests += said["requests"]

    def close(self) -> Sample:
        """Hang up, and return the figures."""
        cpu_us = (self._server.cpu_s() - self._began_s) / self._requests * 1e6
        said = self._ask("close", {})
        return {
            CPU_REQUEST.name: cpu_us,
            CPU_DELTA.name: cpu_us / self._traffic.answer.deltas,
            P50.name: said["p50_ms"],
            P99.name: said["p99_ms"],
            FIRST.name: said["first_p50_ms"],
            "requests": self._requests,
            SERVER_BUSY: self._busy_s / self._wall_s,
            LOAD_BUSY: self._load_s / self._wall_s,
            WAITED: self._waited_s / (self._waited_s + self._busy_s),
        }

    def _ask(self, do: str, rest: dict[str, Any]) -> Any:
        command = {"do": do, "name": self._kind} | rest
        patience_s = PATIENCE_S + self._stage.seconds
        return self._stage.load.ask(command, patience_s=patience_s)
