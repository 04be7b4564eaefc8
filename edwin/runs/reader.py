"""One reader's place in a run's events; made by :class:`~edwin.runs.run.Run`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

from edwin.errors import RunCancelled
from edwin.types import Event, RunFailed, RunFinished

if TYPE_CHECKING:
    from edwin.runs.run import Run


class Reader:
    """One reader's place in a run's events.

    Use as a context manager: while it is open the run knows that somebody reads.

    Attributes:
        holds: Whether the run goes on for its sake.
        closed: Whether it reads no more.

    """

    def __init__(
        self, run: Run, after: int, *, holds: bool = True, skips: bool = False
    ) -> None:
        self.holds = holds
        self._skips = skips
        self._run = run
        self._place = after
        self._waiter: asyncio.Future[None] | None = None
        self._until_end = False
        self.closed = False

    def __enter__(self) -> Reader:
        self._run.joined(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def place(self) -> int:
        """The number of the last event that :meth:`next` returned."""
        return self._place

    def skip(self) -> int:
        """Go on with what is still in the buffer; return how many events are missed."""
        missed = max(0, self._run.first - 1 - self._place)
        self._place += missed
        return missed

    def close(self) -> None:
        """Stop reading; a waiting :meth:`next` returns at once.  Idempotent."""
        if not self.closed:
            self.closed = True
            self._run.left(self)
            self.wake()

    def notify(self, *, ended: bool) -> None:
        """Wake the reader if it waits for this kind of news; called by the run."""
        if ended or not self._until_end:
            self.wake()

    def wake(self) -> None:
        """Let a waiting :meth:`next` return, with or without events."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> list[Event]:
        """Return the events that came since the last call, all of them at once.

        Waits until there is one, or until :meth:`wake` or :meth:`close`; then the
        list may be empty.  It is empty, too, when events were missed by a reader that
        can do without: :meth:`skip` says how many.

        Raises:
            InternalError: If another reader is too far behind the buffer.

        """
        events = self._since()
        if not events and not self.closed and self._place >= self._run.first - 1:
            await self._wait()
            events = self._since()
        self._place += len(events)
        return events

    def _since(self) -> list[Event]:
        if self._skips and self._place < self._run.first - 1:
            return []
        return self._run.since(self._place)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events one by one, until the run's end or :meth:`close`."""
        while not self.closed:
            for event in await self.next():
                yield event
                if isinstance(event, (RunFinished, RunFailed)):
                    return

    async def result(self) -> RunFinished:
        """Return the run's whole answer.

        Raises:
            EdwinError: What the run failed with.
            RunCancelled: If the reader was closed first.

        """
        self._until_end = True
        while not self.closed:
            match self._run.end:
                case RunFinished() as end:
                    return end
                case RunFailed(error):
                    raise error
            await self._wait()
        raise RunCancelled("the client left")

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
