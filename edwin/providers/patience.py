"""One timer for a whole answer, instead of one for each read of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Patience:
    """Gives up on an answer: at a deadline before it begins, then after a silence.

    Silence is only what is waited for between :meth:`wait` and :meth:`rest`; a slow
    consumer is not the provider's fault.  A timer for each read would cost more than
    the reading, so the one there is looks at its goal when it fires and goes on.

    Args:
        give_up: Called once, when patience is exhausted.
        deadline: Loop time until which the answer has to begin.
        silence_s: Seconds of silence after that.

    Attributes:
        began: Whether the answer has begun.
        exhausted: Whether *give_up* was called.

    """

    def __init__(
        self, give_up: Callable[[], None], deadline: float, silence_s: float
    ) -> None:
        self.began = False
        self.exhausted = False
        self._loop = asyncio.get_running_loop()
        self._give_up = give_up
        self._silence_s = silence_s
        self._due = deadline
        self._timer = self._loop.call_at(deadline, self._check)

    def begin(self) -> None:
        """Count only silence from now on."""
        self.began = True
        self._due = math.inf
        self._timer.cancel()
        self._timer = self._loop.call_later(self._silence_s, self._check)

    def wait(self) -> None:
        """Begin to wait for bytes."""
        if self.began:
            self._due = self._loop.time() + self._silence_s

    def rest(self) -> None:
        """Stop waiting: something came."""
        if self.began:
            self._due = math.inf

    def stop(self) -> None:
        """Never give up from now on."""
        self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        if now < self._due:
            again = min(self._due, now + self._silence_s)
            self._timer = self._loop.call_at(again, self._check)
        else:
            self.exhausted = True
            self._give_up()
