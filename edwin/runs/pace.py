"""How fast runs come to their end, and so how long a refused one has to wait; pure."""

from __future__ import annotations

import math

MEMORY_S = 30.0
"""What ended longer ago than this hardly counts."""

UNKNOWN_S = 5.0
SHORTEST_S = 1.0
LONGEST_S = 60.0


class Pace:
    """The speed of a queue, from what left it lately.

    Args:
        now: Any monotonic clock's seconds; those of all calls.

    """

    def __init__(self, now: float) -> None:
        self._began = self._last = now
        self._weight = 0.0
        self._mean_s = 0.0

    def ended(self, now: float, took_s: float) -> None:
        """Note that a run came to its end after it had been under way for *took_s*."""
        self._fade(now)
        self._weight += 1
        # The first counts whole, later ones by their share of what is remembered.
        self._mean_s += (took_s - self._mean_s) / max(1.0, self._weight)

    def until_free(self, now: float, waiting: int) -> float:
        """Return the seconds until a place is free for one behind *waiting* runs."""
        self._fade(now)
        seen_s = MEMORY_S * (1 - math.exp((self._began - now) / MEMORY_S))
        if self._weight < 0.5:
            return UNKNOWN_S
        return _within((waiting + 1) * seen_s / self._weight)

    def until_turn(self, waiting: int) -> float:
        """Return the seconds until *waiting* runs of one lane have had their turns."""
        if not self._mean_s:
            return UNKNOWN_S
        return _within(waiting * self._mean_s)

    def _fade(self, now: float) -> None:
        self._weight *= math.exp((self._last - now) / MEMORY_S)
        self._last = now


def _within(seconds: float) -> float:
    return min(max(seconds, SHORTEST_S), LONGEST_S)
