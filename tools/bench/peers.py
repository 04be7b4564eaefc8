"""What else can be measured beside Edwin: ``--with NAME``.

A peer gets the same load from the same upstream in the same rounds, between the floors
like Edwin.  A new one is a line in :data:`PEERS` and a function that starts it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from tools.bench import processes
from tools.bench.processes import ROOT, TOKEN, BenchError, Server
from tools.bench.upstream import AS_ASKED
from tools.lib import environment

LITELLM = "litellm[proxy]>=1.108.7,<1.109"
# Importing everything it can do takes it this long on a slow machine.
LITELLM_START_S = 120.0


class Start(Protocol):
    """Starts a server whose provider is at *upstream*."""

    def __call__(self, upstream: str, *, cores: set[int], folder: Path) -> Server:
        """Return it when it answers."""
        ...


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server to compare Edwin with.

    Attributes:
        start: Starts it.
        edwin: Whether it is a variant of Edwin, so that every measure can be taken and
            Edwin is compared with it instead of it with Edwin.
        prepare: Makes what it needs, before anything is started.
        versions: What it is made of, by name.

    """

    start: Start
    edwin: bool = False
    prepare: Callable[[], None] = lambda: None
    versions: Callable[[], Mapping[str, str]] = dict


def _litellm_folder() -> Path:
    return ROOT / ".venv-litellm"


def _prepare_litellm() -> None:
    """Make LiteLLM's own environment, unless it is there."""
    folder = _litellm_folder()
    stamp, python = folder / "made-from", folder / "bin" / "python"
    wanted = f"{LITELLM}; Python {sys.version}"
    made = stamp.exists() and stamp.read_text("utf-8") == wanted
    if made and environment.runs(python):
        return
    environment.check_venv()
    environment.say(f"making {folder.name} (once; about 750 MB)")
    environment.run(sys.executable, "-m", "venv", "--clear", folder)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    environment.run(*pip, LITELLM)
    stamp.write_text(wanted, "utf-8")


def _litellm_versions() -> dict[str, str]:
    code = (
        "import json; from importlib.metadata import version as v; "
        "print(json.dumps({n: v(n) for n in ('litellm', 'fastapi', 'uvicorn')}))"
    )
    words = [str(_litellm_folder() / "bin" / "python"), "-c", code]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"LiteLLM's environment is broken: {done.stderr[-1000:]}")
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def _start_litellm(upstream: str, *, cores: set[int], folder: Path) -> Server:
    """Start LiteLLM's proxy: one worker, no database, nothing logged or reported."""
    model = {
        "model": "openai/mock",
        # It asks its provider for a whole answer, and wants to get one.
        "api_base": upstream.removesuffix("/v1") + AS_ASKED + "/v1",
        "api_key": "none",
    }
    document = {
        "model_list": [{"model_name": "edwin", "litellm_params": model}],
        "general_settings": {"master_key": TOKEN},
        "litellm_settings": {"telemetry": False},
    }
    folder.mkdir(exist_ok=True)
    path = folder / "litellm.yaml"
    # JSON is YAML too.
    path.write_text(json.dumps(document), "utf-8")
    log = folder / "log.json"
    quiet = {"version": 1, "root": {"level": "CRITICAL"}}
    log.write_text(json.dumps(quiet), "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    options = {
        "--config": str(path),
        "--log_config": str(log),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--num_workers": "1",
        # Its connections rest while others have their slices.
        "--keepalive_timeout": "600",
        "--telemetry": "False",
    }
    bin = _litellm_folder() / "bin"
    return Server(
        [str(bin / "litellm"), *(word for pair in options.items() for word in pair)],
        cores=cores,
        folder=folder,
        python=str(bin / "python"),
        environ={
            "PYTHONPATH": "",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "CRITICAL",
            "LITELLM_MODE": "PRODUCTION",
        },
        port_of=lambda output: port,
        health="/health/liveliness",
        start_within_s=LITELLM_START_S,
        settle_s=1.2,
    )


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "litellm": Peer(
            start=_start_litellm, prepare=_prepare_litellm, versions=_litellm_versions
        ),
        "uncounted": Peer(
            start=partial(processes.edwin, module="tools.bench.uncounted"), edwin=True
        ),
    }
)
