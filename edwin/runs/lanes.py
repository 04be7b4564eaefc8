"""Lanes: the runs of one session, strictly one after another; no loop, no tasks."""

from __future__ import annotations

from collections import deque
from itertools import islice

from edwin.runs.run import Run
from edwin.types import SessionId


class Lanes:
    """Who is at the head of which session's lane, and who waits behind.

    A lane exists while it holds a run.
    """

    def __init__(self) -> None:
        self._lanes: dict[SessionId, deque[Run]] = {}

    def length(self, session: SessionId) -> int:
        """Return how many runs *session*'s lane holds."""
        return len(self._lanes.get(session, ()))

    def waiting(self, session: SessionId) -> int:
        """Return how many runs wait behind the head, without those that have ended.

        An ended run is there only to have its messages stored in its turn.
        """
        lane = self._lanes.get(session, ())
        return sum(not run.ended for run in islice(lane, 1, None))

    def join(self, run: Run) -> bool:
        """Put *run* at the end of its lane; return whether it is the head."""
        lane = self._lanes.setdefault(run.request.session, deque())
        lane.append(run)
        return len(lane) == 1

    def leave(self, run: Run) -> Run | None:
        """Take *run* out of its lane.

        Returns:
            The run that is the head now and was not before, or None.

        """
        session = run.request.session
        lane = self._lanes[session]
        was_head = lane[0] is run
        lane.remove(run)
        if not lane:
            del self._lanes[session]
            return None
        return lane[0] if was_head else None
