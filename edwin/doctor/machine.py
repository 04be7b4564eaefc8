"""Can this machine serve: the port, the files it may open, the room on its disk?"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edwin.config import Config
from edwin.doctor.finding import Finding, ok, problem, warning
from edwin.runs.limits import RESERVED
from edwin.state import Holder

MIN_FREE_BYTES = 100 * 1024 * 1024
LOW_FREE_BYTES = 1024 * 1024 * 1024


def check_port(config: Config, holder: Holder | None) -> Iterator[Finding]:
    """See whether a gateway could listen where it is to.

    Args:
        config: Says where.
        holder: Who holds the state folder, if anybody does.

    """
    bind, port = config.gateway.bind, config.gateway.port
    where = f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}"
    if holder is not None and holder.url is not None:
        yield ok("port", f"a gateway listens: {holder}")
        return
    fault = _bind(bind, port)
    if fault is None:
        free = "a free port" if port == 0 else where
        yield ok("port", f"{free} can be listened on")
    elif fault.errno == errno.EADDRINUSE:
        yield problem(
            "port",
            f"{where} is held by {_who_listens(port)}",
            "the gateway cannot listen there",
            "stop that one, or set gateway.port to another",
        )
    else:
        yield problem(
            "port",
            f"{where} cannot be listened on: {fault.strerror or fault}",
            "the gateway cannot start",
            "set gateway.bind to an address of this machine, and gateway.port to one "
            "that its user may take (1024 or more)",
        )


def check_files(config: Config) -> Iterator[Finding]:
    """See whether a process may open as many files as its runs need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    runs = config.gateway.runs.max_concurrent
    needed = RESERVED + 2 * runs
    if hard == resource.RLIM_INFINITY or hard >= needed:
        shown = "any number of" if hard == resource.RLIM_INFINITY else f"{hard}"
        yield ok(
            "files", f"a process may open {shown} files; {runs} runs need {needed}"
        )
        return
    yield warning(
        "files",
        f"a process may open {hard} files; {runs} runs at once need {needed}",
        f"{max(1, (hard - RESERVED) // 2)} runs are carried at once, the rest waits",
        "raise the limit (ulimit -Hn, LimitNOFILE), or lower "
        "gateway.runs.maxConcurrent",
    )


def check_disk(config: Config) -> Iterator[Finding]:
    """See whether there is room where the store is."""
    place = config.gateway.state_dir
    try:
        place = _nearest_folder(place)
        free = shutil.disk_usage(place).free
        inodes = os.statvfs(place)
    except OSError as error:
        yield problem(
            "disk",
            f"{place} cannot be looked at: {error.strerror}",
            "the store has no place",
            "set gateway.stateDir to a folder that can be used",
        )
        return
    fix = "make room, or move gateway.stateDir to another disk"
    if inodes.f_files and not inodes.f_favail:
        yield problem("disk", f"{place} takes no more files", "the store stops", fix)
        return
    shown = f"{free / 2**30:.1f} GiB are free at {place}"
    if free < MIN_FREE_BYTES:
        yield problem("disk", shown, "the store stops when none is left", fix)
    elif free < LOW_FREE_BYTES:
        yield warning("disk", shown, "the store stops when none is left", fix)
    else:
        yield ok("disk", shown)


def _bind(host: str, port: int) -> OSError | None:
    """Return why nobody can listen on *host* and *port*, or None."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                # Connections that are over hold no port, as for the gateway itself.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        return error
    return None


def _who_listens(port: int) -> str:
    """Return who listens on *port*, as far as this user may know."""
    sockets = set(_listening(port))
    if not sockets:
        return "another process"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(map(sockets.__contains__, _open_files(process))):
                name = (process / "comm").read_text("utf-8", "replace").strip()
                return f"pid {process.name} ({name})"
        except OSError:
            # It ended meanwhile, or is somebody else's.
            continue
    return "a process of another user"


def _open_files(process: Path) -> Iterator[str]:
    """Yield what the process has open, as Linux names it."""
    for file in (process / "fd").iterdir():
        # Some are closed before they are looked at.
        with suppress(FileNotFoundError):
            yield os.readlink(file)


def _listening(port: int) -> Iterator[str]:
    """Yield the sockets that listen on *port*, as Linux names them."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{words[9]}]"


def _nearest_folder(path: Path) -> Path:
    """Return *path*, or the folder it would be made in."""
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))
