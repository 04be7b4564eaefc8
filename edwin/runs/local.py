"""LocalEngine: every run is a task of this process.

One lane per session with a history, none for the others; a limit on how many run
at once; one deadline over waiting and running.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from edwin.config import RunsConfig
from edwin.errors import (
    EdwinError,
    GatewayStopping,
    Overloaded,
    QueueTimeout,
    RunTimeout,
    SessionQueueFull,
    StorageUnavailable,
)
from edwin.runs.carry import Carrier
from edwin.runs.idempotency import IdempotencyKeys
from edwin.runs.lanes import Lanes, Turn
from edwin.runs.pace import Pace
from edwin.runs.run import Run
from edwin.types import RunQueued, RunRequest, SessionId

MAX_RECENT = 1_000
"""Runs that are kept in memory for a while after their end; the oldest go first."""

_T = TypeVar("_T")


class Errand:
    """Work that is no run, and has its turn in a session's lane."""

    waits = False

    def __init__(self, session: SessionId) -> None:
        self.session = session
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class LocalEngine:
    """Carries runs out in this process; a :class:`~edwin.runs.engine.RunEngine`.

    Args:
        carrier: Carries out one run.
        limits: How many may run and wait, and for how long.
        keys: Which idempotency keys are in use.

    """

    def __init__(
        self, carrier: Carrier, limits: RunsConfig, keys: IdempotencyKeys
    ) -> None:
        self._carrier = carrier
        self._limits = limits
        self._keys = keys
        self._lanes = Lanes()
        self._ready: deque[Run] = deque()
        self._live: dict[str, Run] = {}
        self._recent: OrderedDict[str, Run] = OrderedDict()
        self._tasks: dict[Run, asyncio.Task[None]] = {}
        self._timers: dict[Run, asyncio.TimerHandle] = {}
        self._waiting = self._carrying = 0
        self._pace = Pace(asyncio.get_running_loop().time())
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Begin to take runs."""
        self._stopping = False

    async def submit(self, request: RunRequest) -> Run:
        """Return the run that carries out *request*; see :class:`RunEngine`."""
        if request.idempotency is None:
            return self._begin(request)
        return await self._keys.run_of(request, self._begin)

    def find(self, run_id: str) -> Run | None:
        """Return the run with this id; see :class:`RunEngine`."""
        return self._live.get(run_id) or self._recent.get(run_id)

    def live(self) -> Collection[Run]:
        """Return the runs that wait or are under way."""
        return self._live.values()

    async def exclusively(
        self,
        session: SessionId,
        work: Callable[[], Awaitable[_T]],
        *,
        cancel: EdwinError | None = None,
    ) -> _T:
        """Do *work* in *session*'s lane, in its turn; see :class:`RunEngine`."""
        if self._stopping:
            raise GatewayStopping("the gateway is shutting down", retry_after_s=5)
        if self._lanes.length(session) > self._limits.max_queued_per_session + 1:
            raise SessionQueueFull(
                "too much waits in this session already "
                "(gateway.runs.maxQueuedPerSession)",
                retry_after_s=self._pace.until_turn(1),
            )
        errand = Errand(session)
        first = self._lanes.join(errand)
        try:
            if cancel is not None:
                for turn in self._lanes.of(session):
                    if isinstance(turn, Run):
                        turn.cancel(cancel)
            if not first:
                await errand.turn
            return await work()
        finally:
            self._leave_lane(errand)
            self._start_ready()

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

    def forget(self, session: SessionId) -> None:
        """Keep nothing in memory of *session*'s runs that have ended."""
        for run in [r for r in self._recent.values() if r.session == session]:
            self._forget(run.id)

    def limit(self, limits: RunsConfig) -> None:
        """Go by other *limits* from now on; deadlines stay as they are."""
        self._limits = limits
        self._start_ready()

    @property
    def running(self) -> int:
        """How many runs are under way."""
        return self._carrying

    @property
    def waiting(self) -> int:
        """How many runs wait, for their session or for a place."""
        return self._waiting

    def _begin(self, request: RunRequest) -> Run:
        self._admit(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds(request)
        linger_s = self._limits.grace_seconds if request.idempotency else 0.0
        run = Run(
            request,
            deadline=deadline,
            accept=self._carrier.accept,
            deliver=self._carrier.deliver,
            stop=self._stop,
            linger_s=math.inf if request.detached else linger_s,
        )
        self._live[run.id] = run
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

    def _seconds(self, request: RunRequest) -> float:
        limit = self._limits.timeout_seconds
        return limit if request.timeout_s is None else min(limit, request.timeout_s)

    def _admit(self, request: RunRequest) -> None:
        limits = self._limits
        if self._stopping:
            raise GatewayStopping("the gateway is shutting down", retry_after_s=5)
        if (request.stateful or request.kept) and not self._carrier.writable:
            # Nothing is generated that could not be kept.
            raise StorageUnavailable(
                "the store cannot be written at the moment", retry_after_s=5
            )
        before = self._lanes.length(request.session) if request.stateful else 0
        waiting = self._lanes.waiting(request.session) if before else 0
        if before and waiting >= limits.max_queued_per_session:
            raise SessionQueueFull(
                f"{waiting} runs wait in this session already "
                "(gateway.runs.maxQueuedPerSession)",
                retry_after_s=self._pace.until_turn(1),
            )
        must_wait = (
            self._carrying >= limits.max_concurrent or bool(self._ready) or before > 0
        )
        if must_wait and self._waiting >= limits.max_queued:
            now = asyncio.get_running_loop().time()
            raise Overloaded(
                f"{self._waiting} runs wait already (gateway.runs.maxQueued)",
                retry_after_s=self._pace.until_free(now, 0),
            )

    def _start_ready(self) -> None:
        while self._ready and self._carrying < self._limits.max_concurrent:
            run = self._ready.popleft()
            self._waiting -= 1
            self._carrying += 1
            self._launch(run)

    def _launch(self, run: Run) -> None:
        # The loop's monitor names who blocks by it.
        name = f"{run.id} {run.request.agent.id}"
        task = asyncio.get_running_loop().create_task(self._work(run), name=name)
        self._tasks[run] = task

    async def _work(self, run: Run) -> None:
        """Carry *run* out, and let the next one begin."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        carrying = not run.ended
        try:
            if run.stopped is not None and not run.ended:
                self._carrier.drop(run, run.stopped)
            if not run.ended:
                await self._carrier.carry(run)
                now = loop.time()
                self._pace.ended(now, now - began)
            elif run.pended:
                # It is here only to have its accepted messages stored, for which it
                # takes nobody's place.
                await self._carrier.settle(run)
        finally:
            del self._tasks[run]
            self._carrying -= carrying
            self._leave(run)
            self._start_ready()

    def _leave(self, run: Run) -> None:
        del self._live[run.id]
        self._timers.pop(run).cancel()
        if run.request.kept:
            self._remember(run)
        if run.request.stateful:
            self._leave_lane(run)
        if not self._live:
            self._idle.set()

    def _leave_lane(self, turn: Turn) -> None:
        head = self._lanes.leave(turn)
        if isinstance(head, Run):
            if head.ended:
                self._launch(head)
            else:
                self._ready.append(head)
        elif isinstance(head, Errand) and not head.turn.done():
            head.turn.set_result(None)

    def _remember(self, run: Run) -> None:
        """Keep an ended *run* at hand until the store is sure to know it."""
        if run.released:
            self._keys.forget(run.request)
        self._recent[run.id] = run
        asyncio.get_running_loop().call_later(
            max(self._limits.grace_seconds, 2.0), self._forget, run.id
        )
        while len(self._recent) > MAX_RECENT:
            self._forget(next(iter(self._recent)))

    def _forget(self, run_id: str) -> None:
        run = self._recent.pop(run_id, None)
        if run is not None and not run.released:
            self._keys.forget(run.request)

    def _expire(self, run: Run) -> None:
        seconds = f"{self._seconds(run.request):g}"
        if run in self._tasks:
            run.cancel(
                RunTimeout(
                    f"the run was not done after {seconds} s "
                    "(gateway.runs.timeoutSeconds)",
                    should_retry=False,
                )
            )
        else:
            now = asyncio.get_running_loop().time()
            run.cancel(
                QueueTimeout(
                    f"the run was not begun after {seconds} s "
                    "(gateway.runs.timeoutSeconds)",
                    retry_after_s=self._pace.until_free(now, self._waiting),
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
        was_next = run in self._ready
        if was_next:
            self._ready.remove(run)
        if not run.pended:
            self._leave(run)
            self._start_ready()
        elif was_next:
            # Accepted: it keeps its place, and its messages are stored in order.
            self._launch(run)
