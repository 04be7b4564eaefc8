"""``edwin doctor``: what it prints, and its exit codes."""

from __future__ import annotations

import json
import socket

import pytest

from edwin.testing.gateway import TOKEN
from edwin.validate import Schemas

SCRIPTED = """
agents: { defaults: { model: s/echo } }
models: { providers: { s: { api: scripted } } }
"""


@pytest.fixture
def configured(tmp_path, state, command):
    """Return a function that writes the configuration the command reads."""
    file = tmp_path / "edwin.yaml"

    def write(port: int, mode: int = 0o600) -> None:
        auth = f"auth: {{ token: {TOKEN} }}"
        text = f"gateway: {{ port: {port}, stateDir: '{state}', {auth} }}{SCRIPTED}"
        file.write_text(text)
        file.chmod(mode)

    return write


@pytest.mark.gen_test
async def test_doctor_finds_nothing_wrong(command, configured):
    """Where nothing is wrong, the exit code is 0."""
    configured(0)
    result = await command("doctor")
    assert result.exit_code == 0, result.stdout
    assert all(line.startswith("ok  ") for line in result.stdout.splitlines())


@pytest.mark.gen_test
async def test_doctor_tells_of_problems(command, configured):
    """A problem is told with its reason and what to do, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        configured(port, 0o644)
        result = await command("doctor")
        as_json = await command("doctor", "--json")
    assert (result.exit_code, as_json.exit_code) == (1, 1)
    lines = result.stdout.splitlines()
    place = next(n for n, line in enumerate(lines) if f"127.0.0.1:{port}" in line)
    assert lines[place].startswith("PROBLEM ")
    assert lines[place + 1] == "        the gateway cannot listen there"
    assert lines[place + 2].startswith("        → stop that one")
    document = json.loads(as_json.stdout)
    Schemas().check("doctor/report", document)
    found = [f["check"] for f in document["findings"] if f["level"] == "problem"]
    assert found == ["permissions", "port"]
    assert TOKEN not in result.stdout + as_json.stdout


@pytest.mark.gen_test
@pytest.mark.parametrize("words", [(), ("--json",)])
async def test_doctor_refuses_a_bad_configuration(command, tmp_path, words):
    """With a configuration that cannot be used the exit code is 2."""
    (tmp_path / "edwin.yaml").write_text("gateway: { prot: 1 }\n")
    result = await command("doctor", *words)
    assert result.exit_code == 2
    assert "gateway.prot" in result.stdout
    assert "did you mean port?" in result.stdout


@pytest.mark.gen_test
async def test_doctor_beside_a_gateway(command, configured, kept, state):
    """A gateway that runs is no problem, and goes on."""
    configured(int(kept.url.rsplit(":", 1)[1]))
    result = await command("doctor")
    assert result.exit_code == 0, result.stdout
    assert f"{state} is held by a gateway or a command: pid " in result.stdout
    assert "a gateway listens: pid " in result.stdout
    assert kept.gateway.state == "ready"
