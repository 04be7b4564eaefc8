"""The audit log: who was refused, and who changed what; never what was said.

A line of JSON for each event in ``<stateDir>/audit.jsonl``.  Owned by the gateway, and
written to by whoever does or refuses what an event tells of.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from edwin.addresses import neighbourhood

FILE = "audit.jsonl"
MAX_BYTES = 10 * 1024 * 1024
FILES = 5
"""So many files are there at most, the one that is written included."""

WINDOW_S = 60.0
"""What repeats itself within as many seconds becomes one line."""

MAX_COUNTED = 32
"""So many addresses and principals are told apart within a window; the rest is one."""

MAX_WAITING = 10_000
"""So many lines wait for the disk at most."""

EVENTS = (
    *("gateway.started", "gateway.stopped", "config.reloaded", "config.refused"),
    *("auth.failed", "auth.locked_out", "limit.hit"),
    *("token.created", "token.revoked", "token.rotated"),
    *("session.deleted", "session.reset", "run.cancelled_by_another"),
)
LOST = "audit.lost"

_AGAIN_S = 1.0

_log = logging.getLogger("edwin")


class Source(NamedTuple):
    """Who asked for something, and how.

    Attributes:
        principal: Id of the principal; None: nobody who is known.
        address: Where the request came from; None: a command on this machine.
        request_id: The request; None: there was none.

    """

    principal: str | None = None
    address: str | None = None
    request_id: str | None = None


NOBODY = Source()


class _Repeats:
    """What is known of an event since its line in this window."""

    def __init__(self) -> None:
        self.count = 0
        self.last: dict[str, Any] = {}


class AuditLog:
    """Writes the audit log from a thread of its own; who adds to it never waits.

    Each batch opens the file anew, so that it can be moved away at any time.  Lines
    that cannot be written are tried again each second; the newest are lost when too
    many wait, and the log and a line ``audit.lost`` say how many.

    Args:
        path: The file; mode 0600.  Older ones are ``<path>.1`` (the newest) and up.
        max_bytes: A file that is as long as this is moved away.
        files: How many files there are at most.
        window_s: For how long :meth:`count` counts before it tells.

    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_BYTES,
        files: int = FILES,
        window_s: float = WINDOW_S,
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._files = files
        self._window_s = window_s
        # Held for microseconds, never while something is written.
        self._changed = threading.Condition()
        self._waiting: list[dict[str, Any]] = []
        self._lost = 0
        self._repeats: dict[tuple[Any, ...], _Repeats] = {}
        self._window_ends: float | None = None
        self._ending = False
        self._failing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write; lines added before that wait for it."""
        self._ending = False
        self._thread = threading.Thread(
            target=self._run, name="edwin-audit", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, if the disk takes it, and end.  Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._changed:
            self._ending = True
            self._changed.notify()
        thread.join()

    def write(self, event: str, source: Source = NOBODY, **details: Any) -> None:
        """Add the line of an event that happened now.

        Args:
            event: One of :data:`EVENTS`.
            source: Who asked for it.
            details: What else is to be told, in JSON's types; no content, no secret.

        """
        with self._changed:
            self._add(_line(event, source, details))

    def count(self, event: str, source: Source = NOBODY, **details: Any) -> None:
        """Add an event that a client can repeat as often as it likes.

        The first one of a window has its line at once; what the same principal or
        neighbourhood repeats is one more line at the window's end, with ``count`` and
        ``since``.

        Args:
            event: As for :meth:`write`.
            source: Likewise.
            details: Likewise; few different ones.

        """
        line = _line(event, source, details)
        where = source.address and neighbourhood(source.address)
        key: tuple[Any, ...] = (event, source.principal, where, *details.values())
        with self._changed:
            if self._window_ends is None:
                self._window_ends = time.monotonic() + self._window_s
                self._changed.notify()
            repeats = self._repeats.get(key)
            if repeats is None and len(self._repeats) < MAX_COUNTED:
                self._repeats[key] = _Repeats()
                self._add(line)
                return
            if repeats is None:
                # An attacker may have any number of addresses.
                line = _line(event, NOBODY, {})
                repeats = self._repeats.setdefault((event,), _Repeats())
            if not repeats.count:
                line["since"] = line["at"]
            else:
                line["since"] = repeats.last["since"]
            repeats.count += 1
            repeats.last = line

    def _add(self, line: dict[str, Any]) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(line)
        self._changed.notify()

    def _run(self) -> None:
        """Run the thread; so does all that stands below."""
        lines: list[dict[str, Any]] = []
        ending = False
        while not ending:
            with self._changed:
                if not lines:
                    self._wait()
                ending = self._ending
                if ending or not lines:
                    lines += self._taken()
            if self._written(lines):
                lines = []
            elif not ending:
                self._pause()
        if lines:
            _log.error("%d lines of the audit log are lost", len(lines))

    def _wait(self) -> None:
        """Return when there is something to write, or the end."""
        while not (self._waiting or self._ending):
            left = None
            if self._window_ends is not None:
                left = self._window_ends - time.monotonic()
                if left <= 0:
                    return
            self._changed.wait(left)

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ending, _AGAIN_S)

    def _taken(self) -> list[dict[str, Any]]:
        """Return the lines that wait, and those of a window that is over."""
        lines, self._waiting = self._waiting, []
        if self._lost:
            lines.append(_line(LOST, NOBODY, {"count": self._lost}))
            self._lost = 0
        over = self._window_ends is not None and self._window_ends <= time.monotonic()
        if over or self._ending:
            lines += [
                {**repeats.last, "count": repeats.count}
                for repeats in self._repeats.values()
                if repeats.count
            ]
            self._repeats, self._window_ends = {}, None
        return lines

    def _written(self, lines: list[dict[str, Any]]) -> bool:
        """Write *lines* behind what is there; return whether that went."""
        if not lines:
            return True
        try:
            self._rotate()
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                _append(file, b"".join(orjson.dumps(line) + b"\n" for line in lines))
            finally:
                os.close(file)
        except OSError as error:
            if not self._failing:
                reason = error.strerror or error
                _log.warning("the audit log cannot be written: %s", reason)
            self._failing = True
            return False
        if self._failing:
            _log.warning("the audit log is written again")
        self._failing = False
        lost = sum(line["count"] for line in lines if line["event"] == LOST)
        if lost:
            _log.error("%d lines of the audit log are lost", lost)
        return True

    def _rotate(self) -> None:
        """Move a file away that is long enough, and let go of the oldest one."""
        try:
            if self.path.stat().st_size < self._max_bytes:
                return
        except FileNotFoundError:
            return
        # The oldest is what a rename replaces.
        names = [self.path, *(self._older(n) for n in range(1, self._files))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(older)

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _line(event: str, source: Source, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": round(time.time(), 3),
        "event": event,
        **source._asdict(),
        **details,
    }


def _append(file: int, data: bytes) -> None:
    """Write all of *data*, or nothing; a line that was cut off before stays alone.

    Raises:
        OSError: If it cannot be written.

    """
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        data = b"\n" + data
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError:
        os.ftruncate(file, size)
        raise
