"""What runs and sessions are to do, as simply as it can be said: no time, no tasks.

``test_runs_model.py`` does the same to this and to a gateway, and compares.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

PLACES = 2
"""Runs at once."""

WAITING = 3
"""Runs that may wait in one session."""


@dataclass(eq=False)
class Run:
    """One run.

    Attributes:
        number: Tells the provider, and the test, which one it is; with its key a
            later run may have it again.
        session: None: it has none.
        streamed: Whether somebody reads it as a stream.
        fate: What the provider does when it goes on: ``whole``, ``cut`` or ``refused``.
        state: As the gateway has it, or ``lost``: nobody was told that it was there.
        code: What it failed with.
        accepted: Whether what was sent is durable.
        left: Whether it has left its lane.
        context: What the model is to read.
        run_id: The gateway's name for it, once known.

    """

    number: int
    session: str | None
    text: str
    fate: str
    key: str | None = None
    detached: bool = False
    state: str = "queued"
    code: str | None = None
    accepted: bool = False
    left: bool = False
    context: list[tuple[str, str]] = field(default_factory=list)
    run_id: str | None = None

    @property
    def live(self) -> bool:
        """Whether it waits or is under way."""
        return self.state in ("queued", "running")

    @property
    def kept(self) -> bool:
        """Whether who has its id, or its key, may ask for it."""
        return self.detached or self.key is not None

    @property
    def first_piece(self) -> str:
        """What the provider says at once."""
        return "" if self.fate == "refused" else f"{self.number}a "

    @property
    def answer(self) -> str:
        """What it says in all."""
        return f"{self.number}a {self.number}b"


@dataclass(eq=False)
class Errand:
    """Something that waits for its turn in a session.

    Attributes:
        there: Whether the session was there when it was asked for.
        found: Whether it was when its turn came, or before; None: not done yet.

    """

    kind: str
    session: str
    there: bool
    found: bool | None = None


@dataclass(eq=False)
class Line:
    """A message of a session; *gone*: it is no part of the transcript any more."""

    run: Run
    text: str
    own: bool
    gone: bool = False


class Model:
    """Sessions and runs.

    Attributes:
        ready: Runs that wait for a place alone, in order.
        running: Those that have one.
        sessions: What each of them holds.
        keys: The run that has a key.
        used: The run that had it last, of keys of which it is known whether they are
            free.
        freed_late: Keys that became free, as the store learns within a second.

    """

    def __init__(self) -> None:
        self.lanes: dict[str, deque[Run | Errand]] = {}
        self.ready: deque[Run] = deque()
        self.running: list[Run] = []
        self.runs: list[Run] = []
        self.sessions: dict[str, list[Line]] = {}
        self.keys: dict[str, Run] = {}
        self.used: dict[str, Run] = {}
        self.freed_late: set[str | None] = set()

    @property
    def live(self) -> list[Run]:
        """The runs that wait or are under way, in the order they came."""
        return [run for run in self.runs if run.live]

    @property
    def unsettled(self) -> list[Run]:
        """The runs that have ended, and wait for their messages to be stored."""
        return [run for run in self.runs if not run.live and not run.left]

    @property
    def errands(self) -> Iterator[Errand]:
        """What waits for its turn."""
        for lane in self.lanes.values():
            yield from (turn for turn in lane if isinstance(turn, Errand))

    def is_full(self, session: str | None) -> bool:
        """Return whether one more run of *session* is refused."""
        behind = list(self.lanes.get(session or "", ()))[1:]
        return sum(isinstance(t, Run) and t.live for t in behind) >= WAITING

    def submit(self, run: Run, *, accepted: bool) -> None:
        """Let *run* come in; *accepted*: who sent it hears so while it waits."""
        self.runs.append(run)
        if run.key is not None:
            self.keys[run.key] = self.used[run.key] = run
        self._join(run)
        self._go_on()
        if accepted:
            self.accept(run)

    def accept(self, run: Run) -> None:
        """Make what was sent durable."""
        if run.kept or run.session is not None:
            run.accepted = run.accepted or run.live

    def release(self, run: Run) -> None:
        """Let the provider end its answer."""
        if run.fate == "whole":
            self._end(run, "finished", None, run.answer)
        elif run.fate == "cut":
            self._end(run, "failed", "provider_stream_error", run.first_piece)
        else:
            self._free(run)
            self._end(run, "failed", "provider_unavailable", "")
        self._go_on()

    def cancel(self, run: Run) -> None:
        """End *run* before its time."""
        self._cancel(run, "cancelled", "run_cancelled")
        self._go_on()

    def do(self, errand: Errand) -> None:
        """Let *errand* have its turn, and end what is before it if it deletes."""
        self._join(errand)
        if errand.kind == "delete":
            for turn in list(self.lanes.get(errand.session, ())):
                if isinstance(turn, Run) and turn.live:
                    self._cancel(turn, "cancelled", "run_cancelled")
        self._go_on()

    def stop(self) -> None:
        """Stop the gateway: every run ends, and what was accepted is stored."""
        for run in self.live:
            if run.state == "running":
                self._cancel(run, "failed", "gateway_stopping")
        for run in self.live:
            self._cancel(run, "failed", "gateway_stopping")
        self._go_on()
        self.freed_late.clear()

    def crash(self) -> None:
        """End the gateway's process: what was not durable was never there."""
        for run in self.runs:
            if run.left:
                continue
            if run.accepted:
                if run.state != "running":
                    self._append(run, run.text, own=False, gone=True)
                run.state, run.code = "failed", "run_interrupted"
                self._leave_transcript(run)
            else:
                run.state = "lost"
                self._free(run)
            run.left = True
        for key in self.freed_late:
            self._forget(key)
        self.freed_late.clear()
        self.lanes.clear()
        self.ready.clear()
        self.running.clear()

    def _join(self, turn: Run | Errand) -> None:
        if turn.session is None:
            assert isinstance(turn, Run)
            self.ready.append(turn)
            return
        lane = self.lanes.setdefault(turn.session, deque())
        lane.append(turn)
        if len(lane) == 1:
            self._is_head(turn)

    def _leave(self, turn: Run | Errand) -> None:
        if isinstance(turn, Run):
            turn.left = True
        if turn.session is None:
            return
        lane = self.lanes[turn.session]
        was_head = lane[0] is turn
        lane.remove(turn)
        if not lane:
            del self.lanes[turn.session]
        elif was_head:
            self._is_head(lane[0])

    def _is_head(self, turn: Run | Errand) -> None:
        if isinstance(turn, Run):
            if turn.live:
                self.ready.append(turn)
            else:
                self._settle(turn)
            return
        lines = self.sessions.get(turn.session)
        turn.found = lines is not None or (turn.kind == "delete" and turn.there)
        if turn.kind == "delete":
            self.sessions.pop(turn.session, None)
            for key, run in list(self.keys.items()):
                if run.session == turn.session and not run.live:
                    del self.keys[key]
        for line in lines or ():
            line.gone = True
        self._leave(turn)

    def _go_on(self) -> None:
        while self.ready and len(self.running) < PLACES:
            run = self.ready.popleft()
            run.state, run.accepted = "running", run.kept or run.session is not None
            self.running.append(run)
            run.context = self._begin(run)

    def _settle(self, run: Run) -> None:
        """Keep what was sent to *run*, which ended before it began."""
        self._begin(run)
        self._leave(run)
        self._free(run)
        self.freed_late.add(run.key)

    def _begin(self, run: Run) -> list[tuple[str, str]]:
        """Keep what was sent to *run*; return what the model reads."""
        if run.session is None:
            return [("user", run.text)]
        current = [x for x in self.sessions.get(run.session, []) if not x.gone]
        if current and current[-1].run.state == "cancelled":
            # The same once more, in place of what was cancelled.
            last = [line for line in current if line.run is current[-1].run]
            if [x.text for x in last if not x.own] == [run.text]:
                self._leave_transcript(last[0].run)
        self._append(run, run.text, own=False, gone=run.state == "failed")
        return [
            ("assistant" if line.own else "user", line.text)
            for line in self.sessions[run.session]
            if not line.gone
        ]

    def _cancel(self, run: Run, state: str, code: str) -> None:
        if run.state == "running":
            self._end(run, state, code, run.first_piece)
            return
        run.state, run.code = state, code
        was_next = run in self.ready
        if was_next:
            self.ready.remove(run)
        if not run.accepted:
            self._free(run)
            self._leave(run)
        elif was_next:
            self._settle(run)

    def _end(self, run: Run, state: str, code: str | None, said: str) -> None:
        run.state, run.code = state, code
        if said:
            self._append(run, said, own=True)
        if state == "failed":
            self._leave_transcript(run)
        self.running.remove(run)
        self._leave(run)

    def _append(self, run: Run, text: str, *, own: bool, gone: bool = False) -> None:
        if run.session is not None:
            lines = self.sessions.setdefault(run.session, [])
            lines.append(Line(run, text, own, gone))

    def _leave_transcript(self, run: Run) -> None:
        for line in self.sessions.get(run.session or "", ()):
            line.gone = line.gone or line.run is run

    def _free(self, run: Run) -> None:
        """Let its key be free: it was refused."""
        if run.key is not None and self.keys.get(run.key) is run:
            del self.keys[run.key]

    def _forget(self, key: str | None) -> None:
        self.keys.pop(key or "", None)
        self.used.pop(key or "", None)
