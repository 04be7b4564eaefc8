"""The processes of a run: started on their cores, read from outside, ended by id."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = "a-token-for-the-bench-only"
START_S = 30.0
STOP_S = 10.0
# How often a server that starts is looked at.
GLANCE_S = 0.002


class BenchError(Exception):
    """The run cannot go on."""


class Cores:
    """Where the processes run: servers on one core, all the rest on another.

    With only one core, everybody shares it.
    """

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        # The kernel's own work is mostly done by the first.
        self.servers = {cores[-1]}
        self.rest = {cores[0]}
        self.apart = len(cores) > 1


class Process:
    """A process that this run started, and that it ends.

    Args:
        words: The command.
        cores: Where it may run.
        folder: Its working directory and home.
        pipes: Whether its standard input and output are kept for :meth:`ask`;
            otherwise what it prints goes to the file ``output``.
        python: The interpreter; default: this one.
        environ: Variables that are added or replaced.

    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        cores: set[int],
        folder: Path,
        pipes: bool,
        python: str = sys.executable,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("EDWIN_")}
        # As installed: what was compiled once is not compiled at every start.
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        kept |= {"PYTHONPATH": str(ROOT), "HOME": str(folder)}
        self.folder = folder
        folder.mkdir(exist_ok=True)
        mine = os.sched_getaffinity(0)
        # A child begins on its parent's cores: there is no moment on another.
        os.sched_setaffinity(0, cores)
        try:
            with open(folder / "output", "wb") as output:
                self.started_at = time.perf_counter()
                self._process = subprocess.Popen(
                    [python, *words],
                    cwd=folder,
                    env={**kept, **environ},
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipes else output,
                    stderr=output,
                )
        finally:
            os.sched_setaffinity(0, mine)
        self.pid = self._process.pid

    def output(self) -> str:
        """Return what it has printed."""
        return (self.folder / "output").read_text("utf-8", "replace")

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its threads, dead ones too, to the nanosecond.

        What a thread has used since it last came to rest is not in it for sure, so it
        is to be read while the process waits.
        """
        # clock_getcpuclockid(3) of the C library, which Python has for threads only.
        return time.clock_gettime((~self.pid << 3) | 2)

    def waited_s(self) -> float:
        """Return the seconds its first thread was ready to run and had no core."""
        text = Path(f"/proc/{self.pid}/schedstat").read_text("ascii")
        return int(text.split()[1]) / 1e9

    def memory(self) -> Mapping[str, int]:
        """Return its memory in bytes, by the names of ``/proc/<pid>/smaps_rollup``."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text("ascii").splitlines()
        sizes = (line.split() for line in lines[1:])
        return {name.rstrip(":"): int(size) * 1024 for name, size, *_ in sizes}

    def ask(self, line: Mapping[str, Any], *, patience_s: float) -> Any:
        """Write *line* to its input and return what it answers.

        Raises:
            BenchError: If it ended, or does not answer within *patience_s*.

        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        return self.line(patience_s)

    def line(self, patience_s: float) -> Any:
        """Return the next line it prints; see :meth:`ask`."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], patience_s)[0]:
            raise BenchError(f"no answer within {patience_s:g} s from {self}")
        answer = self._process.stdout.readline()
        if not answer:
            raise BenchError(f"{self} has ended: {self.output()[-3000:]}")
        return json.loads(answer)

    def check(self) -> None:
        """Raise :class:`BenchError` if it has ended."""
        if self._process.poll() is not None:
            raise BenchError(f"{self} has ended: {self.output()[-3000:]}")

    def stop(self) -> None:
        """End it, and wait for its end.  Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # What it never read is still to be written, to nobody.
                with suppress(BrokenPipeError):
                    pipe.close()
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __str__(self) -> str:
        return f"{self.folder.name} (pid {self.pid})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Helper(Process):
    """The load or the upstream: obeys lines on its standard input."""

    def __init__(self, name: str, *, cores: set[int], folder: Path) -> None:
        super().__init__(
            ["-m", f"tools.bench.{name}"], cores=cores, folder=folder, pipes=True
        )


class Server(Process):
    """A server under test, from its exec to its first 200.

    Attributes:
        port: Where it answers.
        start_s: Seconds from exec to the first 200 on its health page.
        settle_s: Seconds after the last answer until all work for it is done.

    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        cores: set[int],
        folder: Path,
        port_of: Callable[[str], int | None],
        settle_s: float,
        health: str = "/healthz",
        start_within_s: float = START_S,
        **rest: Any,
    ) -> None:
        super().__init__(words, cores=cores, folder=folder, pipes=False, **rest)
        self.settle_s = settle_s
        until = self.started_at + start_within_s
        port = None
        try:
            while port is None or not _healthy(port, health):
                self.check()
                if time.perf_counter() > until:
                    raise BenchError(f"{self} does not answer: {self.output()[-3000:]}")
                port = port_of(self.output())
                if port is None:
                    time.sleep(GLANCE_S)
        except BaseException:
            self.stop()
            raise
        self.port = port
        self.start_s = time.perf_counter() - self.started_at


def floor(upstream: str, *, cores: set[int], folder: Path) -> Server:
    """Start the floor."""

    def port_of(output: str) -> int | None:
        return int(output) if output.endswith("\n") else None

    return Server(
        ["-m", "tools.bench.floor", upstream],
        cores=cores,
        folder=folder,
        port_of=port_of,
        settle_s=0.05,
    )


def edwin(
    upstream: str, *, cores: set[int], folder: Path, module: str = "edwin.gateway"
) -> Server:
    """Start the gateway, as its command does, with what is needed to answer.

    Args:
        upstream: Where its provider is.
        cores: Where it may run.
        folder: Its working directory, home, and place of its state.
        module: What is run; takes the command's options.

    """
    folder.mkdir(exist_ok=True)
    path = folder / "edwin.yaml"
    # JSON is YAML too.
    path.write_text(json.dumps(_configuration(upstream, folder)), "utf-8")

    def port_of(output: str) -> int | None:
        for line in output.splitlines():
            if '"port":' in line and line.endswith("}"):
                return int(json.loads(line)["port"])
        return None

    return Server(
        ["-m", module, "--config", str(path), "--port", "0"],
        cores=cores,
        folder=folder,
        port_of=port_of,
        # Ledger lines are written within a second.
        settle_s=1.2,
    )


def _configuration(upstream: str, folder: Path) -> dict[str, Any]:
    provider = {
        "api": "openai-completions",
        "baseUrl": upstream,
        # A stream may be silent as long as a round lasts.
        "idleSeconds": 600,
    }
    return {
        "gateway": {
            "stateDir": str(folder / "state"),
            "shutdownSeconds": 1,
            "auth": {
                "mode": "token",
                "token": TOKEN,
                # Who sends wrong tokens on purpose is not to be shut out.
                "limiter": {"exemptLoopback": True},
            },
            # One run is enough to keep a session busy; nobody else waits in one.
            "runs": {"maxQueuedPerSession": 0},
            "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
        },
        "agents": {"defaults": {"model": "x/mock"}},
        "models": {"providers": {"x": provider}},
    }


def _healthy(port: int, path: str) -> bool:
    with (
        suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), timeout=START_S) as client,
    ):
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return client.recv(65536).startswith(b"HTTP/1.1 200 ")
    return False
