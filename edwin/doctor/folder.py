"""Is the state folder private, and can the gateway use it?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edwin.config import Config
from edwin.doctor.finding import Finding, ok, problem, warning
from edwin.state import Holder

READERS = 0o077


def check_folder(config: Config, holder: Holder | None) -> Iterator[Finding]:
    """See who can read what the gateway keeps, and whether it can be written.

    Args:
        config: Says where the folder is.
        holder: Who holds it, if anybody does.

    """
    folder = config.gateway.state_dir
    try:
        yield from _check(folder)
    except OSError as error:
        yield problem(
            "permissions",
            f"{folder} cannot be looked at: {error.strerror}",
            "the gateway cannot start",
            "give it to the gateway's user, and the folders above it too",
        )
    if holder is not None:
        yield ok("holder", f"{folder} is held by a gateway or a command: {holder}")


def _check(folder: Path) -> Iterator[Finding]:
    if not folder.exists():
        yield from _missing(folder)
        return
    if not folder.is_dir():
        yield problem(
            "permissions",
            f"{folder} is no folder",
            "the gateway cannot start",
            "move it away, or set gateway.stateDir to another place",
        )
        return
    faults = list(_faults(folder))
    yield from faults
    if not faults:
        yield ok("permissions", f"{folder} is for its owner alone")


def _missing(folder: Path) -> Iterator[Finding]:
    parent = next(path for path in folder.parents if path.exists())
    if os.access(parent, os.W_OK | os.X_OK):
        yield ok("permissions", f"{folder} will be made at the first start")
        return
    yield problem(
        "permissions",
        f"{folder} is missing, and {parent} cannot be written",
        "the gateway cannot start",
        f"make {folder} for the gateway's user, mode 0700",
    )


def _faults(folder: Path) -> Iterator[Finding]:
    status = folder.stat()
    if status.st_uid != os.geteuid():
        yield warning(
            "permissions",
            f"{folder} belongs to user {status.st_uid}, and this is {os.geteuid()}",
            "what is found here is not what the gateway's own user finds",
            "ask again as the user that the gateway runs as",
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield problem(
            "permissions",
            f"{folder} cannot be read and written",
            "the gateway cannot start",
            "give it to the gateway's user",
        )
        return
    yield from _open_to_others(folder, status.st_mode, "700")
    for path in sorted(folder.iterdir()):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(found.st_mode):
            yield from _open_to_others(path, found.st_mode, "600")
            if not os.access(path, os.R_OK | os.W_OK):
                yield problem(
                    "permissions",
                    f"{path} cannot be read and written",
                    "the gateway cannot start, or not keep what it has to",
                    "give it to the gateway's user",
                )


def _open_to_others(path: Path, mode: int, wanted: str) -> Iterator[Finding]:
    if mode & READERS:
        yield problem(
            "permissions",
            f"{path} has mode {stat.S_IMODE(mode):04o}",
            "others on this machine may read what is kept there",
            f"chmod {wanted} {path}",
        )
