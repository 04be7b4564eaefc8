"""Commands on a state folder that a gateway holds, or nobody does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from edwin.cli import main
from edwin.testing.gateway import TOKEN, LocalGateway

TWO_AGENTS = {"agents": {"list": [{"id": "main"}, {"id": "beta"}]}}

Command = Callable[..., Awaitable[Result]]
Place = Callable[[], Awaitable[None]]


@pytest.fixture
def state(tmp_path) -> Path:
    """Return the state folder that the commands' configuration names."""
    return tmp_path / "state"


@pytest.fixture
def command(tmp_path, state) -> Command:
    """Run a command beside the loop: ``await command("runs", "list")``."""
    file = tmp_path / "edwin.yaml"
    gateway = {"stateDir": str(state), "auth": {"token": TOKEN}}
    file.write_text(yaml.safe_dump({"gateway": gateway, **TWO_AGENTS}))
    unset = ("EDWIN_GATEWAY_TOKEN", "EDWIN_GATEWAY_PASSWORD", "EDWIN_STATE_DIR")
    variables = {"HOME": str(tmp_path), "EDWIN_CONFIG": str(file)}
    runner = CliRunner(env={**dict.fromkeys(unset), **variables})

    async def run(*words: str) -> Result:
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(None, runner.invoke, main, words)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def kept(io_loop, make_gateway, state) -> LocalGateway:
    """Return a gateway that holds the state folder."""
    return io_loop.run_sync(lambda: make_gateway(TWO_AGENTS, state_dir=state))


@pytest.fixture(params=["http", "alone"])
def settle(request, kept) -> Place:
    """Do what is to be done before the commands: nothing, or stop the gateway."""

    async def settled() -> None:
        if request.param == "alone":
            await kept.stop()

    return settled


def lines(result: Result) -> list[dict]:
    """Return the documents that a command printed, one a line."""
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]
