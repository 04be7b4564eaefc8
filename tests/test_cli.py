"""The command ``edwin``: the same way in as HTTP, from a terminal."""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import Client
from tests.process import GatewayProcess, edwin, environment
from tests.test_lifecycle import in_thread, provided_by

COLUMNS = "agent, state, error_code, finish_reason, prompt_tokens, completion_tokens"


@pytest.fixture
def configured(tmp_path, upstream):
    """Return a folder whose edwin.yaml talks to the scripted provider."""
    config = provided_by(upstream, stateDir=str(tmp_path / "state"))
    (tmp_path / "edwin.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def say(*words: str) -> list[str]:
    return ["agent", "--local", *words]


@pytest.mark.gen_test
async def test_cli_agent_prints_the_answer(configured, upstream):
    """``edwin agent --local -m`` prints the answer and nothing else."""
    upstream.reply("Hello\nyou")
    result = await in_thread(edwin, *say("-m", "Hi"), cwd=configured)
    assert (result.returncode, result.stdout, result.stderr) == (0, "Hello\nyou\n", "")
    assert upstream.requests[0].body["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.gen_test
async def test_cli_agent_streams(configured, upstream):
    """The answer is printed as it comes."""
    upstream.hang(after=["first "], then=["second"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edwin.cli", *say("-m", "Hi")),
        cwd=configured,
        env=environment(HOME=str(configured)),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readexactly(6) == b"first "
    upstream.release()
    assert await process.stdout.read() == b"second\n"
    assert await process.wait() == 0


@pytest.mark.gen_test
async def test_cli_agent_json(configured, upstream):
    """``--json`` prints the completion object."""
    upstream.reply("Hello")
    result = await in_thread(edwin, *say("-m", "Hi", "--json"), cwd=configured)
    document = json.loads(result.stdout)
    assert document["object"] == "chat.completion"
    assert document["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.gen_test
async def test_cli_agent_failure(configured, upstream):
    """A failed run is a sentence on standard error, and exit code 1."""
    upstream.fail(401)
    result = await in_thread(edwin, *say("-m", "Hi"), cwd=configured)
    assert (result.returncode, result.stdout) == (1, "")
    assert "provider_error" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.gen_test
async def test_cli_agent_interrupted(configured, upstream):
    """Ctrl-C ends the run at the provider, and the command with 130."""
    import signal

    upstream.hang(after=["some"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edwin.cli", *say("-m", "Hi")),
        cwd=configured,
        env=environment(HOME=str(configured)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readexactly(4)
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (130, b"")
    assert upstream.requests[0].closed.is_set()


@pytest.mark.gen_test
async def test_cli_agent_and_http_are_one_path(upstream, tmp_path):
    """The same conversation leaves the same transcript and ledger either way."""
    upstream.default = None
    folders = [tmp_path / "http", tmp_path / "cli"]
    for folder in folders:
        folder.mkdir()
        config = provided_by(upstream, stateDir=str(folder / "state"))
        (folder / "edwin.yaml").write_text(yaml.safe_dump(config))
    with await in_thread(GatewayProcess, folders[0], provided_by(upstream)) as process:
        client = Client(process)
        for text in ("one", "two"):
            assert (await client.chat(text, user="ann")).status == 200
        assert (await client.chat("alone")).status == 200
        process.terminate()
        await in_thread(process.wait)
    for words in (("one", "--user", "ann"), ("two", "--user", "ann"), ("alone",)):
        result = await in_thread(edwin, *say("-m", *words), cwd=folders[1])
        assert result.returncode == 0, result.stderr
    kept = [contents(folder / "state" / "edwin.db") for folder in folders]
    assert kept[0] == kept[1]
    assert len(kept[0]["runs"]) == 3 and len(kept[0]["messages"]) == 4


def contents(path: Path) -> dict[str, list[tuple]]:
    """Return what the store holds, without ids and times."""
    with sqlite3.connect(path) as database:
        runs = database.execute(f"SELECT {COLUMNS} FROM runs ORDER BY created_at")
        messages = database.execute(
            "SELECT seq, role, own, body, superseded_by FROM messages ORDER BY seq"
        )
        result = {"runs": runs.fetchall(), "messages": messages.fetchall()}
    database.close()
    return result


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["agent", "-m", "x"], "--local"),
        (["agent", "--local"], "--message"),
        (["agent", "--local", "-m", "x", "--user", "a", "--session", "b"], "--user"),
        (["gateway", "--port", "70000"], "--port"),
        (["nonsense"], "nonsense"),
    ],
)
async def test_cli_usage(configured, words, message):
    """A wrong command line says what is wrong, and exits with 2."""
    result = await in_thread(edwin, *words, cwd=configured)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.gen_test
async def test_cli_unknown_agent(configured):
    """An agent that does not exist is an error, not another agent."""
    result = await in_thread(
        edwin, *say("-m", "x", "--agent", "nobody"), cwd=configured
    )
    assert result.returncode == 1
    assert "agent_not_found" in result.stderr


@pytest.mark.gen_test
async def test_cli_bad_configuration(tmp_path):
    """A bad configuration is named by file, line and key, and exits with 2."""
    (tmp_path / "edwin.yaml").write_text("gateway:\n  prot: 1\n")
    for words in (["gateway"], say("-m", "x")):
        result = await in_thread(edwin, *words, cwd=tmp_path)
        assert result.returncode == 2
        assert "edwin.yaml:2: gateway.prot" in result.stderr
        assert "did you mean port" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.gen_test
async def test_cli_check_config(configured):
    """``--check-config`` says what would run, hides secrets, and is silent else."""
    command = [sys.executable, "-W", "error", "-m", "edwin.gateway", "--check-config"]
    variables = environment(HOME=str(configured), EDWIN_GATEWAY_TOKEN="a-secret-token")
    result = await in_thread(
        subprocess.run,
        command,
        cwd=configured,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "18789" in result.stdout and "up/scripted" in result.stdout
    assert "a-secret-token" not in result.stdout
    yaml.safe_load(result.stdout)
    assert not (configured / "state").exists()


@pytest.mark.gen_test
async def test_cli_gateway_may_open_files(upstream, tmp_path):
    """The gateway raises its limit of open files to the one it may not exceed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        process = await in_thread(GatewayProcess, tmp_path, provided_by(upstream))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with process:
        found = resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE)
    assert found == (hard, hard)


@pytest.mark.gen_test
async def test_cli_asks_the_gateway(upstream, tmp_path):
    """A second process finds the gateway by its state folder, and asks it."""
    upstream.hang(after=["half"])
    with await in_thread(GatewayProcess, tmp_path, provided_by(upstream)) as process:
        call = asyncio.ensure_future(Client(process).chat("Hi", stream=True))
        await upstream.arrival()
        running = await in_thread(
            edwin, "runs", "list", "--state", "running", "--json", cwd=tmp_path
        )
        (run,) = json.loads(running.stdout)["data"]
        result = await in_thread(edwin, "runs", "cancel", run["id"], cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert "run_cancelled" in (await call).body
        refused = await in_thread(edwin, "gateway", cwd=tmp_path)
        assert refused.returncode == 1
        assert f"pid {process.process.pid}, {process.url}" in refused.stderr


@pytest.mark.gen_test
async def test_cli_says_nothing_of_the_gateway(configured):
    """A command says nothing of how much a gateway could carry in its place."""
    shell = ("sh", "-c", 'ulimit -Sn 200; exec "$@"', "sh")
    for words in (say("-m", "Hi"), ["runs", "list"]):
        result = await in_thread(
            subprocess.run,
            [*shell, sys.executable, "-m", "edwin.cli", *words],
            cwd=configured,
            env=environment(HOME=str(configured)),
            capture_output=True,
            text=True,
        )
        assert (result.returncode, result.stderr) == (0, "")
