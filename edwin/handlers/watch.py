"""One timer per answer: signs of life when idle, an end when its reader stalls."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Watch:
    """Looks after the writing of one answer.

    A timer that arms itself anew, instead of one for each chunk.

    Args:
        idle_s: Seconds without a write after which *wake* is called.
        stall_s: Seconds for which the client may take nothing of a write; then, or
            half as long again after, *cut* is called.
        wake: Lets the writer send a sign of life.
        cut: Closes the connection.
        unread: Returns how much waits in the kernel; whoever reads makes it change.

    """

    def __init__(
        self,
        *,
        idle_s: float,
        stall_s: float,
        wake: Callable[[], None],
        cut: Callable[[], None],
        unread: Callable[[], int],
    ) -> None:
        self._idle_s = idle_s
        self._stall_s = stall_s
        self._wake = wake
        self._cut = cut
        self._unread = unread
        self._seen = 0
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
        if self._writing:
            # The write ends when the kernel has taken it, which may be long after the
            # client began to read.
            left = self._unread()
            if left != self._seen:
                self._seen = left
                self._last = self._loop.time()
        passed = self._loop.time() - self._last
        if self._writing and passed >= self._stall_s:
            self._cut()
            return
        if self.idle():
            self._wake()
            passed = 0.0
        limit = self._stall_s if self._writing else self._idle_s
        # A write may begin before the timer fires: never sleep past its limit.
        left_s = min(limit - passed, self._stall_s / 4)
        self._timer = self._loop.call_later(max(left_s, 0.001), self._check)


def unread(stream: Any) -> int:
    """Return how many bytes the kernel holds for *stream*'s other side; 0: unknown.

    Linux tells; elsewhere a write has to be done within the time to stall.
    """
    packed = b"\0" * 4
    with suppress(OSError, AttributeError):
        packed = fcntl.ioctl(stream.socket, termios.TIOCOUTQ, packed)
    return int(struct.unpack("i", packed)[0])
