"""The loop monitor: who kept the loop from its work, and for how long.

A beat on the loop says that it is alive; a thread looks whether the beat comes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import selectors
import sys
import threading
import time
import traceback
from collections.abc import Callable

BEAT_S = 0.025
"""Between two signs of life of the loop."""

QUIET_S = 10.0
"""Between two lines in the log, at least."""

_log = logging.getLogger("edwin.monitor")


class LoopMonitor:
    """Watches the loop it is started on.

    A block is noticed by the stack of the loop's thread while it lasts, so that a call
    which holds the interpreter's lock to its end is seen only afterwards.  Nothing is
    logged where the loop itself waits for the processor.

    Args:
        blocked_s: How long the loop may stand still.
        lag: Called on the loop with how late, in seconds, each beat was.
        blocked: Called by the thread for each block, logged or not.
        give_up_s: Who blocks for longer is told of before it is over.

    """

    def __init__(
        self,
        blocked_s: float,
        *,
        lag: Callable[[float], object],
        blocked: Callable[[], object],
        give_up_s: float = 5.0,
    ) -> None:
        self._blocked_s = blocked_s
        self._lag = lag
        self._blocked = blocked
        self._give_up_s = give_up_s
        self._ended = threading.Event()
        # None until the loop first comes to it: what starts a process may take longer.
        self._beaten: float | None = None
        self._logged_at = -QUIET_S
        self._untold = 0

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._due = self._loop.time()
        self._timer: asyncio.Handle = self._loop.call_soon(self._first)
        self._thread = threading.Thread(
            target=self._watch, name="edwin-loop-monitor", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; returns when the thread has ended."""
        self._timer.cancel()
        self._ended.set()
        self._thread.join()

    def _first(self) -> None:
        self._due = self._loop.time()
        self._beat()

    def _beat(self) -> None:
        now = self._loop.time()
        self._beaten = time.monotonic()
        self._lag(max(0.0, now - self._due))
        self._due = now + BEAT_S
        self._timer = self._loop.call_at(self._due, self._beat)

    def _watch(self) -> None:
        """Run the thread; so does all that stands below."""
        while not self._ended.wait(max(self._blocked_s / 2, BEAT_S / 2)):
            beat = self._beaten
            if beat is None:
                continue
            if not self._loop.is_running():
                # Whoever stopped it may let it go on.
                self._beaten = time.monotonic()
            elif time.monotonic() - beat > self._blocked_s + BEAT_S:
                self._look(beat)

    def _look(self, beat: float) -> None:
        """Tell who blocks the loop since *beat*, once it is over or lasts too long."""
        # The loop says so to other threads too; a callback is not part of any task.
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._watched)
        if frame is None or frame.f_code.co_filename == selectors.__file__:
            return
        stack = traceback.format_stack(frame)
        name = None if task is None else task.get_name()
        del frame, task
        self._wait(beat, self._give_up_s)
        last = self._beaten or beat
        over = last != beat
        self._blocked()
        late_s = (last if over else time.monotonic()) - beat - BEAT_S
        self._tell(late_s, stack, over, name)
        self._wait(beat, math.inf)

    def _wait(self, beat: float, seconds: float) -> None:
        """Return when the loop has beaten again, after *seconds*, or at the stop."""
        until = beat + seconds
        while self._beaten == beat and time.monotonic() < until:
            if self._ended.wait(0.005):
                return

    def _tell(
        self, late_s: float, stack: list[str], over: bool, task: str | None
    ) -> None:
        now = time.monotonic()
        if now - self._logged_at < QUIET_S:
            self._untold += 1
            return
        fields = {
            "blocked_ms": round(late_s * 1000),
            "task": task,
            "over": over,
            "untold": self._untold,
            "stack": "".join(stack),
        }
        self._logged_at, self._untold = now, 0
        text = "was blocked for %d ms" if over else "is blocked, for %d ms so far"
        if task is not None:
            text += ", by %s"
        values = (fields["blocked_ms"], task)[: text.count("%")]
        _log.warning("the loop " + text, *values, extra={"fields": fields})
