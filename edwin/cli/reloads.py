"""When the configuration is read again: on SIGHUP, and when its file has changed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edwin.errors import EdwinError

if TYPE_CHECKING:
    from edwin.config import Config
    from edwin.gateway import Gateway

GLANCE_S = 1.0

_log = logging.getLogger("edwin")


class Reloads:
    """Hands the gateway each new configuration; a wrong one is told of, and left.

    Args:
        gateway: Goes by what is read.
        read: Returns the configuration as it is now.

    """

    def __init__(self, gateway: Gateway, read: Callable[[], Config]) -> None:
        self._gateway = gateway
        self._read = read
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)
        self._task = asyncio.create_task(self._main(), name="reloads")

    async def stop(self) -> None:
        """Look no more, and return when a reload under way is done.  Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def reload(self) -> None:
        """Read the configuration, and go by it if nothing is wrong with it."""
        try:
            config = await asyncio.to_thread(self._read)
            await self._gateway.reload(config)
        except EdwinError as error:
            _log.error(
                "the configuration is not reloaded, the last one stays: %s",
                error.message,
            )
            self._gateway.audit.write("config.refused")

    async def _main(self) -> None:
        seen = _state(self._gateway.began_with.source)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(GLANCE_S):
                    await self._asked.wait()
            now = _state(self._gateway.began_with.source)
            if self._asked.is_set() or now != seen:
                self._asked.clear()
                seen = now
                await self.reload()


def _state(file: Path | None) -> tuple[int, int, int] | None:
    """Return what changes with *file*; None: it is not there."""
    if file is None:
        return None
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
