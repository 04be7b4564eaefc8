"""How commands come by what a gateway keeps, and what they say when they cannot."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest
import yaml
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from edwin import mount
from edwin.gateway import Gateway
from edwin.state import holder
from edwin.testing.gateway import TOKEN, LocalGateway
from tests.cli.conftest import lines
from tests.conftest import Client


@pytest.mark.gen_test
async def test_cli_reach_leaves_the_folder_free(kept, command, state):
    """A command that held the state folder itself lets a gateway start right after."""
    assert (await Client(kept).chat("Hi", user="ann")).status == 200
    await kept.stop()
    assert len(lines(await command("runs", "list", "--json"))[0]["data"]) == 1
    async with LocalGateway(state) as served:
        assert (await Client(served).chat("Hi", user="ann")).status == 200


@pytest.mark.gen_test
async def test_cli_reach_starts_no_provider(kept, command, tmp_path):
    """Commands that ask no model start none, so that one that cannot is no matter."""
    assert (await Client(kept).chat("Hi", user="ann")).status == 200
    await kept.stop()
    file = tmp_path / "edwin.yaml"
    config = yaml.safe_load(file.read_text())
    config["models"] = {"providers": {"own": {"api": "no.such.module:Class"}}}
    file.write_text(yaml.safe_dump(config))
    assert (await command("agent", "--local", "-m", "x")).exit_code == 2
    assert len(lines(await command("runs", "list", "--json"))[0]["data"]) == 1


@pytest.mark.gen_test
async def test_cli_reach_nothing_kept(command, state):
    """Where nothing was ever kept the commands say so, and make nothing."""
    for words in (["runs", "list"], ["sessions", "show", "x"], ["backup", "file"]):
        result = await command(*words)
        assert result.exit_code == 1 and "holds nothing yet" in result.stderr
    assert not state.exists()


@pytest.mark.gen_test
async def test_cli_reach_embedded(command, state):
    """A gateway that does not listen itself is asked where ``--url`` says."""
    gateway = Gateway({"gateway": {"stateDir": str(state), "auth": {"token": TOKEN}}})
    await gateway.start()
    host = Application()
    mount(host, gateway, "/ai")
    socket, port = bind_unused_port()
    server = HTTPServer(host)
    server.add_sockets([socket])
    result = await command("runs", "list")
    assert result.exit_code == 1
    assert f"pid {os.getpid()}" in result.stderr and "--url" in result.stderr
    url = f"http://127.0.0.1:{port}/ai"
    (page,) = lines(await command("runs", "list", "--json", "--url", url))
    assert page["data"] == []
    server.stop()
    await server.close_all_connections()
    await gateway.stop()
    result = await command("runs", "list", "--url", url)
    assert result.exit_code == 1 and f"{url} cannot be reached" in result.stderr


@pytest.mark.gen_test
@pytest.mark.parametrize("mode", ["none", "password", "token"])
async def test_cli_reach_secret(make_gateway, command, state, tmp_path, mode):
    """The secret is the configuration's, or the one in the state folder, or none."""
    auth = {"mode": mode}
    if mode == "password":
        auth["password"] = "pässword that is long enough"
    config = {"gateway": {"stateDir": str(state), "auth": auth}}
    (tmp_path / "edwin.yaml").write_text(yaml.safe_dump(config))
    config["gateway"]["port"] = 0
    gateway = Gateway(config)
    await gateway.start()
    await gateway.listen()
    (page,) = lines(await command("runs", "list", "--json"))
    assert page["data"] == []
    await gateway.stop()


@pytest.mark.gen_test
async def test_cli_reach_wrong_secret(kept, command, tmp_path):
    """A secret that the gateway does not take is an error in its words."""
    file = tmp_path / "edwin.yaml"
    file.write_text(file.read_text().replace(TOKEN, "another-token-for-tests"))
    result = await command("sessions", "list")
    assert result.exit_code == 1
    assert result.stderr == "edwin: Incorrect API key provided. (invalid_api_key)\n"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list", "--state", "asleep"],
        ["runs", "list", "--limit", "0"],
        ["runs", "show"],
        ["sessions", "show", "\udcff"],
        ["sessions", "list", "--agent", "\udcff"],
        ["runs", "export", "--session", "\udcff"],
        ["sessions"],
    ],
)
async def test_cli_reach_usage(command, words):
    """A wrong command line says what is wrong, and exits with 2."""
    result = await command(*words)
    assert result.exit_code == 2 and "Usage:" in result.stderr


@pytest.mark.gen_test
async def test_cli_reach_damaged_store(kept, command, state):
    """A store that cannot be opened is an error in a sentence."""
    await kept.stop()
    with closing(sqlite3.connect(state / "edwin.db")) as database:
        database.execute("UPDATE meta SET value = 'other'")
        database.commit()
    result = await command("runs", "list")
    assert result.exit_code == 1 and "another session secret" in result.stderr
    assert holder(state) is None
