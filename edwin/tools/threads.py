"""Threads for functions that block: a bounded number, and none that holds up an exit.

The threads of ``concurrent.futures`` are joined when the process exits, so that one
function that hangs would keep it alive for ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

MAX_THREADS: Final = 64

_log = logging.getLogger("edwin.tools")


class _Outcome(NamedTuple):
    value: object
    error: BaseException | None


class Threads:
    """Runs what blocks, each call in a daemon thread of its own.

    A thread whose call was given up keeps its place until it ends: nobody can end it.

    Args:
        limit: How many there may be at a time; further calls wait.

    """

    def __init__(self, limit: int = MAX_THREADS) -> None:
        self._limit = limit
        self._places = asyncio.Semaphore(limit)
        self._told = False

    async def run(self, work: Callable[[], object], name: str) -> object:
        """Return what *work* returns, called in a thread.

        It sees the caller's context variables.  Cancelling drops the result, and the
        thread is left to end by itself.

        Args:
            work: What is called.
            name: The thread's.

        Raises:
            BaseException: What *work* raised; RuntimeError instead of what would end
                the process, such as SystemExit.

        """
        if self._places.locked() and not self._told:
            self._told = True
            _log.warning(
                "%d functions of tools are running, as many as may; others wait",
                self._limit,
            )
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_Outcome] = loop.create_future()
        context = contextvars.copy_context()

        def target() -> None:
            ended = _outcome(context, work)
            # A loop that is closed has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end, outcome, ended)

        try:
            threading.Thread(target=target, name=name, daemon=True).start()
        except RuntimeError:
            self._places.release()
            raise
        value, error = await outcome
        if error is None:
            return value
        if isinstance(error, Exception | asyncio.CancelledError):
            raise error
        raise RuntimeError(f"the function raised {type(error).__name__}") from error

    def _end(self, outcome: asyncio.Future[_Outcome], ended: _Outcome) -> None:
        self._places.release()
        if not self._places.locked():
            self._told = False
        if not outcome.done():
            outcome.set_result(ended)
        elif inspect.iscoroutine(ended.value):
            ended.value.close()


def _outcome(context: contextvars.Context, work: Callable[[], object]) -> _Outcome:
    try:
        return _Outcome(context.run(work), None)
    except BaseException as error:
        # Whatever it is, it belongs to who waits on the loop.
        return _Outcome(None, error)
