"""A gateway in a process of its own, for tests that end processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from edwin.testing.gateway import TOKEN, merged

ROOT = Path(__file__).parent.parent


def environment(**variables: str) -> dict[str, str]:
    """Return an environment without the user's own Edwin, plus *variables*."""
    own = ("EDWIN_", "OTEL_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def edwin(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``edwin`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "edwin.cli", *words],
        cwd=cwd,
        env=environment(HOME=str(cwd), **variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


class GatewayProcess:
    """``python -m edwin.gateway`` on a free port.

    Attributes:
        url: Where it answers.
        lines: The JSON lines of its log so far.

    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        arguments: Sequence[str] = (),
        **variables: str,
    ) -> None:
        base: dict[str, Any] = {
            "gateway": {
                "port": 0,
                "stateDir": str(folder / "state"),
                "auth": {"token": TOKEN},
                "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
            }
        }
        if "auth" in config.get("gateway", {}):
            del base["gateway"]["auth"]
        path = folder / "edwin.yaml"
        path.write_text(yaml.safe_dump(merged(base, config)), "utf-8")
        self.lines: list[dict[str, Any]] = []
        self._listening = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edwin.gateway", "--config", str(path), *arguments],
            cwd=folder,
            env=environment(HOME=str(folder), **variables),
            stderr=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        if not self._listening.wait(30) or self.process.poll() is not None:
            self.kill()
            raise AssertionError(f"the gateway did not start: {self.lines}")
        self.url = next(
            f"http://127.0.0.1:{line['port']}" for line in self.lines if "port" in line
        )

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"message": text}
            self.lines.append(line)
            if line["message"] == "listening":
                self._listening.set()
        self._listening.set()

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Return its exit code."""
        code = self.process.wait(30)
        self._thread.join(5)
        return code

    def kill(self) -> None:
        """End it at once, and wait for its end."""
        self.process.kill()
        self.process.wait()
        self._thread.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
