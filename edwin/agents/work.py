"""The code of an agent at work: a task that hands over what it yields, one by one.

A task of its own, so that code which does not end when it is told to can be given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Generic, TypeVar

T = TypeVar("T")


class Work(AsyncIterator[T], Generic[T]):
    """Iterates *items* in a task, never further than it is asked to.

    Who iterates it calls :meth:`close`, whatever happens.

    Args:
        items: What is iterated, and closed, in the task.
        name: The task's.

    """

    def __init__(self, items: AsyncGenerator[T, None], name: str) -> None:
        self._slot: list[T] = []
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._closed = False
        self.task = asyncio.create_task(self._pump(items), name=name)
        self.task.add_done_callback(self._ended)

    async def _pump(self, items: AsyncGenerator[T, None]) -> None:
        async with aclosing(items):
            async for item in items:
                if self._closed:
                    # The code took no notice of being cancelled.
                    return
                self._emptied.clear()
                self._slot.append(item)
                self._filled.set()
                await self._emptied.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            # Seen, so that asyncio does not say that nobody did.
            task.exception()
        self._filled.set()

    async def __anext__(self) -> T:
        self._emptied.set()
        while not self._slot:
            if self.task.done():
                self.task.result()
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        return self._slot.pop()

    async def close(self, grace_s: float) -> None:
        """Cancel the work, unless it has ended, and wait for its end.

        Args:
            grace_s: How long; after that the task may still go on.

        """
        self._closed = True
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=grace_s)
        if not self.task.done():
            # Code that cleans up for too long may at least be stopped in that.
            self.task.cancel()
