"""The house under load: a provider and a gateway, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Self

from edwin.testing.gateway import merged
from tools.bench.processes import TOKEN, Process, Server

PATIENCE_S = 30.0


class Call(NamedTuple):
    """A request that the provider got; times are unix seconds.

    Attributes:
        name: Of its prompt.
        arrived_at: When it came.
        closed_at: When its client closed, None: it did not.

    """

    name: str
    arrived_at: float
    closed_at: float | None


class House:
    """A provider and a gateway, which may be killed and begun again.

    Args:
        folder: An empty folder, for everything.
        settings: What the configuration says under ``gateway``, beside what is needed
            to answer.

    Attributes:
        upstream: The process of the provider.
        upstream_port: Where that one answers.
        gateway: The process of the gateway that was begun last.
        url: Where it answers.

    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._cores = os.sched_getaffinity(0)
        self._begun = 0
        self.upstream = Process(
            ["-m", "tools.soak.upstream"],
            cores=self._cores,
            folder=folder / "upstream",
            pipes=True,
        )
        try:
            self.upstream_port = port = self.upstream.line(PATIENCE_S)
            path = folder / "edwin.yaml"
            # JSON is YAML too.
            path.write_text(json.dumps(self._config(port, settings)), "utf-8")
            self.begin()
        except BaseException:
            self.upstream.stop()
            raise

    def _config(self, port: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        gateway = {
            "stateDir": str(self._folder / "state"),
            "shutdownSeconds": 5,
            "auth": {
                "token": TOKEN,
                # Who sends wrong tokens on purpose is not to be shut out.
                "limiter": {"exemptLoopback": True},
            },
            "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
        }
        provider = {
            "api": "openai-completions",
            "baseUrl": f"http://127.0.0.1:{port}/v1",
            # What the provider gets is counted.
            "retries": 0,
        }
        return {
            "gateway": merged(gateway, settings),
            "agents": {"defaults": {"model": "x/scripted", "instructions": ""}},
            "models": {"providers": {"x": provider}},
        }

    def begin(self) -> None:
        """Start a gateway on the state folder; return when it answers.

        Raises:
            BenchError: If it does not.

        """
        self._begun += 1
        words = ["-m", "edwin.gateway", "--port", "0"]
        self.gateway = Server(
            [*words, "--config", str(self._folder / "edwin.yaml")],
            cores=self._cores,
            # Each has its log to itself.
            folder=self._folder / f"gateway-{self._begun}",
            port_of=_port,
            settle_s=0.0,
        )
        self.url = f"http://127.0.0.1:{self.gateway.port}"

    def kill(self) -> None:
        """End the gateway in the middle of whatever it does."""
        os.kill(self.gateway.pid, signal.SIGKILL)
        self.gateway.stop()

    def calls(self) -> tuple[list[Call], list[Call]]:
        """Return the provider's calls that ended since the last time, and the open."""
        report = self.upstream.ask({}, patience_s=PATIENCE_S)
        return (
            [Call(*line) for line in report["ended"]],
            [Call(*line) for line in report["open"]],
        )

    def faults(self) -> list[str]:
        """Return the lines of the gateways' logs that tell of a defect."""
        found = []
        for path in sorted(self._folder.glob("gateway-*/output")):
            with open(path, encoding="utf-8", errors="replace") as lines:
                found += [line.strip() for line in lines if _is_fault(line)]
        return found

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of *query*, from the store."""
        uri = f"file:{self._folder / 'state' / 'edwin.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE_S)) as store:
            return store.execute(query).fetchall()

    def store_bytes(self) -> int:
        """Return the size of the store's files."""
        return sum(
            path.stat().st_size for path in (self._folder / "state").glob("*.db*")
        )

    def stop(self) -> None:
        """End both.  Idempotent."""
        self.gateway.stop()
        self.upstream.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _port(output: str) -> int | None:
    for line in output.splitlines():
        if '"port":' in line and line.endswith("}"):
            return int(json.loads(line)["port"])
    return None


def _is_fault(line: str) -> bool:
    """Return whether a log's line is an error, or none of the gateway's own."""
    return not line.startswith("{") or '"level":"error"' in line
