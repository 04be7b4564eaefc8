"""What every command does before it begins."""

from __future__ import annotations

import sys

import pytest
import yaml

from edwin.testing.gateway import TOKEN
from tests.process import GatewayProcess, edwin

MODULE = """
from edwin.providers.scripted import Scripted

class Mine(Scripted):
    pass
"""
MODELS = {
    "agents": {"defaults": {"model": "mine/echo"}},
    "models": {"providers": {"mine": {"api": "beside_the_file:Mine"}}},
}


@pytest.fixture
def file(tmp_path):
    """Return a configuration that needs the module beside it."""
    folder = tmp_path / "configured"
    folder.mkdir()
    (folder / "beside_the_file.py").write_text(MODULE)
    gateway = {"stateDir": str(tmp_path / "state"), "auth": {"token": TOKEN}, "port": 0}
    path = folder / "edwin.yaml"
    path.write_text(yaml.safe_dump({"gateway": gateway, **MODELS}))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("words", [("agent", "--local", "-m", "hi"), ("doctor",)])
@pytest.mark.parametrize("named", ["option", "variable", "here", "home"])
def test_cli_finds_modules_beside_the_configuration(tmp_path, file, words, named):
    """Modules beside the configuration's file are found, however that is named, and
    wherever the command runs."""
    cwd, variables = tmp_path, {"PYTHONSAFEPATH": "1"}
    if named == "option":
        words = (*words, "--config", "configured/edwin.yaml")
    elif named == "variable":
        variables["EDWIN_CONFIG"] = str(file)
    elif named == "here":
        cwd = file.parent
    else:
        file.parent.rename(tmp_path / ".edwin")
    result = edwin(*words, cwd=cwd, **variables)
    assert result.returncode == 0, result.stderr + result.stdout
    assert words[0] == "doctor" or result.stdout == "hi\n"


def test_cli_gateway_finds_modules_beside_the_configuration(tmp_path):
    """So does the gateway."""
    (tmp_path / "beside_the_file.py").write_text(MODULE)
    with GatewayProcess(tmp_path, MODELS, PYTHONSAFEPATH="1") as process:
        assert process.url


def test_cli_modules_beside_the_configuration_replace_no_other(tmp_path, file):
    """They are looked for last of all."""
    (file.parent / "orjson.py").write_text("raise SystemExit('the wrong one')")
    words = ("agent", "--local", "-m", "hi", "--config", str(file))
    result = edwin(*words, cwd=tmp_path, PYTHONSAFEPATH="1")
    assert (result.stdout, result.stderr) == ("hi\n", "")


@pytest.mark.gen_test
async def test_cli_leaves_the_path_as_it_was(command):
    """A command that ends inside a longer process leaves nothing behind."""
    before = list(sys.path)
    await command("runs", "list")
    assert sys.path == before
