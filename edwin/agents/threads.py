"""Code that blocks: called and iterated in a thread, for the loop to read."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import suppress

GRACE_S = 1.0
"""How long a thread may take to notice that it is cancelled; nobody can end it."""


async def in_thread(
    call: Callable[[], object], name: str, give_up: Callable[[threading.Thread], None]
) -> AsyncGenerator[object, None]:
    """Yield what *call* returns, or each item of it where it is an iterable.

    Both the call and the iteration happen in a daemon thread, which waits until its
    last item is done with.  Closing the generator closes the iterable, in the thread.

    Args:
        call: What is called.
        name: The thread's.
        give_up: Called with the thread if it goes on though the generator is closed.

    Raises:
        BaseException: What *call*, or its iterable, raised.

    """
    bridge = _Bridge(call)
    thread = threading.Thread(target=bridge.run, name=name, daemon=True)
    thread.start()
    try:
        while True:
            while not bridge.items and not bridge.ended:
                bridge.changed.clear()
                await bridge.changed.wait()
            if not bridge.items:
                break
            yield bridge.items.pop()
            bridge.proceed.release()
    finally:
        if not bridge.ended:
            bridge.closed = True
            bridge.proceed.release()
            try:
                await bridge.end(GRACE_S)
            finally:
                if not bridge.ended:
                    give_up(thread)
        if bridge.error is not None:
            raise bridge.error


class _Bridge:
    """What the thread and the loop share; *items* has one at most."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.items: list[object] = []
        self.ended = False
        self.closed = False
        self.error: BaseException | None = None
        self.changed = asyncio.Event()
        self.proceed = threading.Semaphore(0)
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    async def end(self, seconds: float) -> None:
        """Return when the thread has ended, or *seconds* have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.ended:
                    self.changed.clear()
                    await self.changed.wait()

    def run(self) -> None:
        """Run the thread; so does all that stands below."""
        try:
            self._context.run(self._work)
        except BaseException as error:
            # Whatever it is, it belongs to who waits on the loop.
            self.error = error
        self._tell(self._end)

    def _work(self) -> None:
        result = self._call()
        if single(result):
            self._hand(result)
            return
        items = iter(result)  # type: ignore[call-overload]
        try:
            for item in items:
                if not self._hand(item):
                    return
        finally:
            if hasattr(items, "close"):
                items.close()

    def _hand(self, item: object) -> bool:
        """Hand *item* to the loop; return whether another one is wanted."""
        if self.closed or not self._tell(self._put, item):
            return False
        self.proceed.acquire()
        return not self.closed

    def _tell(self, callback: Callable[..., None], *arguments: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is there to be told.
            return False
        return True

    def _put(self, item: object) -> None:
        self.items.append(item)
        self.changed.set()

    def _end(self) -> None:
        self.ended = True
        self.changed.set()


def single(result: object) -> bool:
    """Return whether *result* stands for itself, and is nothing to iterate."""
    whole = (str, bytes, bytearray, Mapping)
    return isinstance(result, whole) or not isinstance(result, Iterable)
