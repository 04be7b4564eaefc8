"""One bench at a time on a machine: two would measure each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bench.processes import BenchError

NAME = "edwin-bench.lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only bench of all that have their lock in *folder*.

    Raises:
        BenchError: If another one runs.

    """
    path = folder / NAME
    try:
        # Another user's file may be locked, though not opened to be made.
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BenchError(
            "another bench runs on this machine, and two would measure each other; "
            f"try again when it has ended ({path} is locked)"
        ) from None
    try:
        yield
    finally:
        # The file stays: whoever removed it could let two in.
        os.close(descriptor)
