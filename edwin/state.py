"""The state folder: made private, held by one process, home of the secrets.

Owned by the gateway.  ``<stateDir>`` is 0700; ``lock``, ``token``,
``session-secret`` and the database in it are 0600.  Who holds the folder stands in
``lock``: its process, and where it listens.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edwin.addresses import parse_address
from edwin.errors import StateError

SECRET_BYTES = 32
TOKEN = "token"
SESSION_SECRET = "session-secret"

# Who only looks holds the lock for microseconds.
_ATTEMPTS = 10
_BETWEEN_ATTEMPTS_S = 0.02
_LOCK_BYTES = 1024


class Holder(NamedTuple):
    """The process that holds a state folder.

    Attributes:
        pid: Its id; None: it has not said so yet.
        url: Where a client on this machine reaches its gateway; None: it does not
            listen, or not yet.

    """

    pid: int | None
    url: str | None

    def __str__(self) -> str:
        pid = "unknown" if self.pid is None else self.pid
        return f"pid {pid}, {self.url}" if self.url else f"pid {pid}"


def holder(path: Path) -> Holder | None:
    """Return who holds the state folder *path*, or None if nobody does.

    Raises:
        StateError: If that cannot be told.

    """
    try:
        lock = os.open(path / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(lock)
    finally:
        os.close(lock)
    return None


class StateFolder:
    """One gateway's exclusive hold on its state folder.

    Args:
        path: The folder; made when it is missing.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def acquire(self) -> None:
        """Make the folder and hold it until :meth:`release`.

        Raises:
            StateError: If another process holds it, or it cannot be written.

        """
        if "?" in str(self.path):
            raise StateError(
                f"the state folder {self.path} has a '?' in its path, which the store "
                "cannot open; choose another"
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        if not _taken(lock):
            found = _read(lock)
            os.close(lock)
            raise StateError(
                f"the state folder {self.path} is held by another Edwin process "
                f"({found}); stop it, or set EDWIN_STATE_DIR or gateway.stateDir to "
                "another folder"
            )
        self._lock = lock
        self._say("")

    def announce(self, bind: str, port: int, *, scheme: str = "http") -> None:
        """Say where the gateway listens, to those who find the folder held.

        Args:
            bind: The address as configured; one that stands for all of this
                machine's addresses is announced as its loopback one.
            port: The port it has.
            scheme: ``http`` or ``https``.

        """
        address = parse_address(bind)
        host = bind
        if address is not None and address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        host = f"[{host}]" if ":" in host else host
        self._say(f"{scheme}://{host}:{port}")

    def release(self) -> None:
        """Let the folder go; the lock file stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def token(self) -> str:
        """Return the gateway's own token, made at first use."""
        return self._kept(TOKEN, lambda: secrets.token_urlsafe(32))

    def session_secret(self) -> str:
        """Return the secret that session keys are made with, made at first use."""
        return self._kept(SESSION_SECRET, lambda: secrets.token_hex(SECRET_BYTES))

    def found_token(self) -> str | None:
        """Return the gateway's own token if there is one; the folder need not be held.

        Raises:
            StateError: If it cannot be read.

        """
        return _found(self.path / TOKEN)

    def _say(self, url: str) -> None:
        if self._lock is not None:
            said = f"{os.getpid()}\n{url}\n".encode()
            os.pwrite(self._lock, said, 0)
            os.ftruncate(self._lock, len(said))

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        path = self.path / name
        if value := _found(path, private=True):
            return value
        value = make()
        self._write(path, value)
        return value

    def _write(self, path: Path, value: str) -> None:
        # By a new name and a rename: after a crash there is a whole file or none.
        draft = path.with_name(path.name + ".new")
        try:
            draft.unlink(missing_ok=True)
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value + "\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}") from error


def _found(path: Path, *, private: bool = False) -> str | None:
    """Return what the file *path* holds, or None; *private*: it is 0600 then."""
    try:
        value = path.read_text("utf-8").strip()
        if value and private:
            path.chmod(0o600)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"{path} cannot be read: {error}") from error
    return value or None


def _taken(lock: int) -> bool:
    """Take the lock; return whether that went."""
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_BETWEEN_ATTEMPTS_S)
        else:
            return True
    return False


def _read(lock: int) -> Holder:
    said = os.pread(lock, _LOCK_BYTES, 0).decode("utf-8", "replace")
    pid, _, url = said.partition("\n")
    return Holder(int(pid) if pid.isdecimal() else None, url.strip() or None)


def _unusable(path: Path, error: OSError) -> StateError:
    return StateError(f"the state folder {path} cannot be used: {error.strerror}")
