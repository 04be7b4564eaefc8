"""LocalEngine: every run is a task of this process.

One lane per session with a history, none for the others; a limit on how many run
at once; one deadline over waiting and running.
"""

from __future__ import annotations

import asyncio
from collections import deque

from edwin.config import RunsConfig
from edwin.errors import (
    GatewayStopping,
    Overloaded,
    QueueTimeout,
    RunTimeout,
    SessionQueueFull,
)
from edwin.runs.carry import Carrier
from edwin.runs.lanes import Lanes
from edwin.runs.run import Run
from edwin.types import RunQueued, RunRequest


class LocalEngine:
    """Carries runs out in this process; a :class:`~edwin.runs.engine.RunEngine`.

    Args:
        carrier: Carries out one run.
        limits: How many may run and wait, and for how long.

    """

    def __init__(self, carrier: Carrier, limits: RunsConfig) -> None:
        self._carrier = carrier
        self._limits = limits
        self._lanes = Lanes()
        self._ready: deque[Run] = deque()
        self._tasks: dict[Run, asyncio.Task[None]] = {}
        self._timers: dict[Run, asyncio.TimerHandle] = {}
        self._waiting = 0
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Begin to take runs."""
        self._stopping = False

    async def submit(self, request: RunRequest) -> Run:
        """Return the run that carries out *request*; see :class:`RunEngine`."""
        self._admit(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.timeout_seconds
        run = Run(
            request,
            deadline=deadline,
            accept=self._carrier.accept,
            deliver=self._carrier.deliver,
            stop=self._stop,
        )
        self._timers[run] = loop.call_at(deadline, self._expire, run)
        self._idle.clear()
        self._waiting += 1
        position = self._lanes.length(request.session) if request.stateful else 0
        if not request.stateful or self._lanes.join(run):
            self._ready.append(run)
            self._start_ready()
        if run not in self._tasks:
            run.emit(RunQueued(position))
        return run

    async def drain(self, seconds: float) -> None:
        """Take no runs any more, and return when none is left."""
        self._stopping = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            for run in list(self._timers):
                run.cancel(GatewayStopping("the gateway is shutting down"))
        await self._idle.wait()

    @property
    def running(self) -> int:
        """How many runs are under way."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """How many runs wait, for their session or for a place."""
        return self._waiting

    def _admit(self, request: RunRequest) -> None:
        limits = self._limits
        if self._stopping:
            raise GatewayStopping("the gateway is shutting down", retry_after_s=5)
        before = self._lanes.length(request.session) if request.stateful else 0
        waiting = self._lanes.waiting(request.session) if before else 0
        if before and waiting >= limits.max_queued_per_session:
            raise SessionQueueFull(
                f"{waiting} runs wait in this session already "
                "(gateway.runs.maxQueuedPerSession)",
                retry_after_s=2,
            )
        must_wait = (
            len(self._tasks) >= limits.max_concurrent or bool(self._ready) or before > 0
        )
        if must_wait and self._waiting >= limits.max_queued:
            raise Overloaded(
                f"{self._waiting} runs wait already (gateway.runs.maxQueued)",
                retry_after_s=2,
            )

    def _start_ready(self) -> None:
        while self._ready and len(self._tasks) < self._limits.max_concurrent:
            run = self._ready.popleft()
            self._waiting -= not run.ended
            self._launch(run)

    def _launch(self, run: Run) -> None:
        task = asyncio.get_running_loop().create_task(self._work(run), name=run.id)
        self._tasks[run] = task

    async def _work(self, run: Run) -> None:
        """Carry *run* out, and let the next one begin."""
        try:
            if run.stopped is not None and not run.ended:
                self._carrier.drop(run, run.stopped)
            if not run.ended:
                await self._carrier.carry(run)
            elif run.pended:
                # It is here only to have its accepted messages stored.
                await self._carrier.settle(run)
        finally:
            del self._tasks[run]
            self._leave(run)
            self._start_ready()

    def _leave(self, run: Run) -> None:
        if timer := self._timers.pop(run, None):
            timer.cancel()
        if run.request.stateful and (head := self._lanes.leave(run)):
            self._ready.append(head)
        if not self._timers:
            self._idle.set()

    def _expire(self, run: Run) -> None:
        seconds = f"{self._limits.timeout_seconds:g}"
        if run in self._tasks:
            run.cancel(
                RunTimeout(
                    f"the run was not done after {seconds} s "
                    "(gateway.runs.timeoutSeconds)",
                    should_retry=False,
                )
            )
        else:
            run.cancel(
                QueueTimeout(
                    f"the run was not begun after {seconds} s "
                    "(gateway.runs.timeoutSeconds)",
                    retry_after_s=5,
                )
            )

    def _stop(self, run: Run) -> None:
        """Carry out :meth:`Run.cancel`."""
        if task := self._tasks.get(run):
            # One that has not begun sees it by itself when it does.
            if run.state == "running":
                task.cancel()
            return
        assert run.stopped is not None
        self._waiting -= 1
        self._carrier.drop(run, run.stopped)
        if run.pended:
            # Accepted: it keeps its place, and its messages are stored in order.
            return
        if run in self._ready:
            self._ready.remove(run)
        self._leave(run)
        self._start_ready()
