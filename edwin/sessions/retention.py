"""Retention: what nobody needs any more goes, in small batches, off the hot path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from edwin.config import SessionsConfig
from edwin.errors import EdwinError
from edwin.store import Store

KEPT_S = 24 * 3600.0
"""How long an idempotency key and its run's outcome are kept from the run's end."""

PAUSE_S = 60.0
BETWEEN_BATCHES_S = 0.05

_log = logging.getLogger("edwin.sessions")


class Retention:
    """Clears the store up now and then.

    Args:
        store: What is cleared up.
        limits: What becomes of sessions with time.
        cleared: Called when something was removed.
        pause_s: Seconds between two looks.

    """

    def __init__(
        self,
        store: Store,
        limits: SessionsConfig,
        *,
        cleared: Callable[[], object] = bool,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._store = store
        self._cleared = cleared
        self._limits = limits
        self._pause_s = pause_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first look is after the first pause."""
        self._task = asyncio.create_task(self._main(), name="retention")

    async def stop(self) -> None:
        """Stop, and return when what is under way is done.  Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def limit(self, limits: SessionsConfig) -> None:
        """Go by other *limits* from the next look on."""
        self._limits = limits

    async def _main(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s)
            try:
                await self.clear_up()
            except EdwinError as error:
                _log.warning("clearing up failed: %s", error.message)

    async def clear_up(self) -> int:
        """Remove all that is past its time; return how much that was.

        Raises:
            StorageUnavailable: If the store cannot be written.

        """
        total = 0
        while removed := await self._store.expire(
            now=time.time(),
            max_age_s=self._limits.max_age_days * 86_400,
            max_messages=self._limits.max_messages,
            kept_s=KEPT_S,
        ):
            total += removed
            self._cleared()
            await asyncio.sleep(BETWEEN_BATCHES_S)
        return total
