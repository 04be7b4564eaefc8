"""One timer per answer: signs of life when idle, an end when its reader stalls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watch:
    """Looks after the writing of one answer.

    A timer that arms itself anew, instead of one for each chunk.

    Args:
        idle_s: Seconds without a write after which *wake* is called.
        stall_s: Seconds that one write may take; then *cut* is called.
        wake: Lets the writer send a sign of life.
        cut: Closes the connection.

    """

    def __init__(
        self,
        *,
        idle_s: float,
        stall_s: float,
        wake: Callable[[], None],
        cut: Callable[[], None],
    ) -> None:
        self._idle_s = idle_s
        self._stall_s = stall_s
        self._wake = wake
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._writing = False
        self._last = self._loop.time()
        self._timer = self._loop.call_later(min(idle_s, stall_s), self._check)

    def begin(self) -> None:
        """Note that a write begins."""
        self._writing = True
        self._last = self._loop.time()

    def end(self) -> None:
        """Note that the write has come to its end."""
        self._writing = False
        self._last = self._loop.time()

    def idle(self) -> bool:
        """Return whether it is time for a sign of life."""
        return not self._writing and self._loop.time() - self._last >= self._idle_s

    def stop(self) -> None:
        """Do nothing any more."""
        self._timer.cancel()

    def _check(self) -> None:
        passed = self._loop.time() - self._last
        if self._writing and passed >= self._stall_s:
            self._cut()
            return
        if self.idle():
            self._wake()
            passed = 0.0
        limit = self._stall_s if self._writing else self._idle_s
        # A write may begin before the timer fires: never sleep past its limit.
        left = min(limit - passed, self._stall_s)
        self._timer = self._loop.call_later(max(left, 0.001), self._check)
