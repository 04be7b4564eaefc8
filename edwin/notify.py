"""Tell the service manager, systemd or one like it, how the process is.

By its protocol: a datagram to the socket that ``NOTIFY_SOCKET`` names.  Called by
``edwin gateway``; without a service manager nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

# Beyond the time that runs have: last bytes, the store, providers' processes.
STOP_MARGIN_S = 30.0

_log = logging.getLogger("edwin")


class ServiceManager:
    """Where to say that the process is ready, and that it is still alive.

    Args:
        environ: The process's environment, as the service manager made it.

    Attributes:
        beat_s: Seconds from one call of :meth:`alive` to the next, half of what the
            service manager waits for; None: it does not wait.

    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # An @ stands for the NUL byte that begins an abstract address.
        self._address = "\0" + address[1:] if address[:1] == "@" else address
        self.beat_s = _beat_s(environ) if address else None

    def ready(self, status: str) -> None:
        """Say that the process serves, and in a line of text what it does."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Say that the process still does its work."""
        self._send("WATCHDOG=1")

    def stopping(self, shutdown_s: float) -> None:
        """Say that the process stops.

        Args:
            shutdown_s: Seconds that runs may go on for.  The service manager waits
                for as long and :data:`STOP_MARGIN_S` more, even if its own limit is
                shorter.

        """
        wait_us = round((shutdown_s + STOP_MARGIN_S) * 1_000_000)
        self._send(f"STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={wait_us}")

    def _send(self, said: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                # A service manager that does not read must not hold up the loop.
                channel.setblocking(False)
                channel.sendto(said.encode(), self._address)
        except OSError as error:
            _log.warning("the service manager cannot be told: %s", error)


def _beat_s(environ: Mapping[str, str]) -> float | None:
    """Return half the time that the service manager waits for, if it waits for us."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    interval = environ.get("WATCHDOG_USEC", "")
    if not interval.isdecimal() or not int(interval):
        return None
    return int(interval) / 2_000_000
