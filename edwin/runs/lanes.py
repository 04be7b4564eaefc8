"""Lanes: the turns of one session, strictly one after another; no loop, no tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from edwin.types import SessionId


class Turn(Protocol):
    """Something that has a session to itself while it is at the head of its lane."""

    @property
    def session(self) -> SessionId:
        """Whose lane it is in."""
        ...

    @property
    def waits(self) -> bool:
        """Whether it counts among those who wait when it is not the head."""
        ...


class Lanes:
    """Who is at the head of which session's lane, and who waits behind.

    A lane exists while it holds a turn.
    """

    def __init__(self) -> None:
        self._lanes: dict[SessionId, deque[Turn]] = {}

    def of(self, session: SessionId) -> Sequence[Turn]:
        """Return what *session*'s lane holds, in order."""
        return tuple(self._lanes.get(session, ()))

    def length(self, session: SessionId) -> int:
        """Return how many turns *session*'s lane holds."""
        return len(self._lanes.get(session, ()))

    def waiting(self, session: SessionId) -> int:
        """Return how many turns wait behind the head; see :attr:`Turn.waits`."""
        lane = self._lanes.get(session, ())
        return sum(turn.waits for turn in islice(lane, 1, None))

    def join(self, turn: Turn) -> bool:
        """Put *turn* at the end of its lane; return whether it is the head."""
        lane = self._lanes.setdefault(turn.session, deque())
        lane.append(turn)
        return len(lane) == 1

    def leave(self, turn: Turn) -> Turn | None:
        """Take *turn* out of its lane.

        Returns:
            The turn that is the head now and was not before, or None.

        """
        session = turn.session
        lane = self._lanes[session]
        was_head = lane[0] is turn
        lane.remove(turn)
        if not lane:
            del self._lanes[session]
            return None
        return lane[0] if was_head else None
