"""Presence: notice at once that a client has gone, whatever it left unread.

Tornado stops listening to a connection whose input holds bytes that nobody has asked
for, a stray line break or a next request, and then misses its end.  Owned by the
gateway; handlers register while they answer.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

INTERVAL_S = 0.25

# Linux says that the other side has closed even with bytes before it unread.
_GONE = getattr(select, "POLLRDHUP", 0)


class Presence:
    """Looks at the sockets of the answers under way, a few times a second."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, fd: int, gone: Callable[[], None]) -> None:
        """Call *gone* once when the other side of socket *fd* has closed."""
        self._watched[fd] = gone
        self._poll.register(fd, _GONE)
        if self._timer is None:
            self._arm()

    def discard(self, fd: int, gone: Callable[[], None]) -> None:
        """Do not call *gone* any more; nothing if *fd* is another's by now."""
        if self._watched.get(fd) == gone:
            self._forget(fd)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget(self, fd: int) -> None:
        del self._watched[fd]
        self._poll.unregister(fd)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._look)

    def _look(self) -> None:
        self._timer = None
        for fd, _ in self._poll.poll(0):
            gone = self._watched[fd]
            self._forget(fd)
            gone()
        if self._watched and self._timer is None:
            self._arm()
