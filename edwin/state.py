"""The state folder: made private, held by one process, home of the secrets.

Owned by the gateway.  ``<stateDir>`` is 0700; ``lock``, ``token``,
``session-secret`` and the database in it are 0600.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from edwin.errors import StateError

SECRET_BYTES = 32


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
            raise StateError(
                f"the state folder {self.path} cannot be used: {error.strerror}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise StateError(
                f"the state folder {self.path} is held by another Edwin process "
                f"(pid {holder or 'unknown'}); stop it, or set EDWIN_STATE_DIR or "
                "gateway.stateDir to another folder"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def release(self) -> None:
        """Let the folder go; the lock file stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def token(self) -> str:
        """Return the gateway's own token, made at first use."""
        return self._kept("token", lambda: secrets.token_urlsafe(32))

    def session_secret(self) -> str:
        """Return the secret that session keys are made with, made at first use."""
        return self._kept("session-secret", lambda: secrets.token_hex(SECRET_BYTES))

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        path = self.path / name
        try:
            if value := path.read_text("utf-8").strip():
                path.chmod(0o600)
                return value
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(f"{path} cannot be read: {error}") from error
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
