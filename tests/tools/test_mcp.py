"""Connections to MCP servers over stdio: real programs, ended in every way."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edwin.errors import ToolsUnavailable
from edwin.tools.base import ToolFailed
from edwin.tools.mcp import McpConnection, label
from edwin.types import McpServer, ToolSource
from tests.process import ROOT, environment
from tests.tools.conftest import CONTEXT, alive, odd, official, there

OWNER = """
import asyncio, sys
from edwin.tools.mcp import McpConnection
from edwin.types import McpServer, ToolSource

async def main():
    server = McpServer(command=sys.executable, args=tuple(sys.argv[1:]))
    connection = McpConnection(server, label="x")
    await connection.start()
    await connection.tools(ToolSource())
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
MISSING = """
from edwin.errors import ConfigError
from edwin.tools.mcp import McpConnection
from edwin.types import McpServer

try:
    asyncio.run(McpConnection(McpServer(command="x"), label="x").start())
except ConfigError as error:
    print(error.message)
"""


@pytest.mark.gen_test
async def test_mcp_calls(connected, monkeypatch):
    """An agent has the server's tools, and the server nothing of the gateway's."""
    monkeypatch.setenv("EDWIN_GATEWAY_TOKEN", "do-not-tell")
    server = await connected(**official(), env={"MINE": "1"})
    tools = await server.tools()
    assert tools["add"].description == "Add two numbers."
    assert tools["add"].fault({"first": 1, "second": 2}) is None
    assert "second" in tools["add"].fault({"first": 1})
    sums = [server.call("add", first=n, second=1) for n in range(20)]
    assert await asyncio.gather(*sums) == [str(n + 1) for n in range(20)]
    note = "[image image/png, 1,204 bytes: not passed on]"
    assert await server.call("picture") == f"a dot\n{note}"
    assert '"grams": 3' in await server.call("weigh")
    with pytest.raises(ToolFailed, match="no paper"):
        await server.call("fail", reason="no paper")
    names = (await server.call("environment")).split()
    assert "MINE" in names and "PATH" in names and "EDWIN_GATEWAY_TOKEN" not in names
    status = await server.ready()
    assert (status.tools, status.restarts, status.error) == (len(tools), 0, None)


@pytest.mark.gen_test
async def test_mcp_cancel_one_of_two(connected, tmp_path):
    """A call that nobody waits for is ended in the server; the others go on."""
    server = await connected(**official())
    folders = [tmp_path / name for name in "ab"]
    calls = []
    for folder in folders:
        folder.mkdir()
        calls.append(asyncio.create_task(server.call("hold", folder=str(folder))))
        await there(folder / "begun")
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    await there(folders[0] / "cancelled")
    (folders[1] / "go").touch()
    assert await calls[1] == "went on"
    assert not (folders[1] / "cancelled").exists()


@pytest.mark.gen_test
async def test_mcp_killed_while_called(connected, tmp_path):
    """Killed, the server fails its calls at once, is started anew, and serves again."""
    server = await connected(**official())
    call = asyncio.create_task(server.call("hold", folder=str(tmp_path)))
    begun = await there(tmp_path / "begun")
    os.kill(int(begun.read_text("ascii")), signal.SIGKILL)
    with pytest.raises(ToolFailed, match="has gone"):
        await call
    status = await server.until(lambda status: status.state == "restarting")
    assert status.error == "it ended by signal 9"
    with pytest.raises(ToolFailed, match="not there at the moment"):
        await server.call("add", first=1, second=2)
    assert (await server.ready()).restarts == 1
    assert await server.call("add", first=1, second=2) == "3"


@pytest.mark.gen_test
async def test_mcp_listens(connected):
    """Tools that come later are there once the server says so, by today's protocol."""
    server = await connected(**official())
    assert "late" not in await server.tools()
    assert await server.call("grow") == "grown"
    await server.until(lambda status: status.tools == 9)
    assert await server.call("late") == "new"


@pytest.mark.gen_test
async def test_mcp_lists_again(connected):
    """Tools that come later are there too by the protocol of before 2026-07-28."""
    server = await connected(**odd())
    assert list(await server.tools()) == ["tool0"]
    await server.call("tool0")
    await server.until(lambda status: status.tools == 2)
    assert list(await server.tools()) == ["tool0", "tool1"]


@pytest.mark.gen_test
async def test_mcp_pages(connected):
    """A list of tools that comes in pages is read to its end."""
    server = await connected(**odd("tools=200", "page=30"))
    assert len(await server.tools()) == 200
    some = await server.tools(allow=("tool1?", "tool7"), prefix="odd_")
    assert sorted(some) == sorted(f"odd_tool{n}" for n in (7, *range(10, 20)))


@pytest.mark.gen_test
async def test_mcp_entries_have_their_own(connected):
    """What an entry says of its tools is true of these alone."""
    server = await connected(**odd())
    safe = (await server.tools(idempotent=True, timeout_s=3.0))["tool0"]
    plain = (await server.tools())["tool0"]
    assert (safe.idempotent, safe.timeout_s) == (True, 3.0)
    assert (plain.idempotent, plain.timeout_s) == (False, 60.0)


@pytest.mark.gen_test
async def test_mcp_garbage(connected, caplog):
    """What a server writes to its output beside messages is passed over."""
    server = await connected(**odd("garbage"))
    assert await server.call("tool0") == "tool0"
    warned = [record for record in caplog.records if "no message" in record.message]
    assert len(warned) == 1


@pytest.mark.gen_test
async def test_mcp_deaf(connected):
    """A server that never answers is ended after its time, and tried again."""
    server = await connected(**odd("deaf"), connect_seconds=0.7)
    with pytest.raises(ToolsUnavailable) as raised:
        await server.tools()
    assert raised.value.retry_after_s >= 1
    status = await server.until(lambda status: status.restarts == 1)
    assert status.tools is None
    assert status.error == "it has not answered within 0.7 seconds"


@pytest.mark.gen_test
async def test_mcp_endless(connected):
    """A message that does not end ends the server instead of the gateway's memory."""
    server = await connected(**odd("endless"))
    status = await server.until(lambda status: status.state == "restarting")
    assert status.error == "it sent a message of more than 16,777,216 bytes"


@pytest.mark.gen_test
async def test_mcp_notices_death(connected):
    """A server that dies is noticed without a call; its tools are known meanwhile."""
    server = await connected(**odd("dies", "tools=3"))
    status = await server.until(lambda status: status.state == "restarting")
    assert status.error == "it ended with exit code 7"
    assert len(await server.tools()) == 3


@pytest.mark.gen_test
async def test_mcp_cannot_be_started(connected):
    """A program that is not there is an error for admins, not of the gateway's."""
    server = await connected(command="/nowhere/at-all")
    status = await server.until(lambda status: status.state == "restarting")
    assert status.error == "it cannot be started: No such file or directory"
    assert status.label == "at-all"


@pytest.mark.gen_test
async def test_mcp_says_why(connected):
    """The last line a server writes before it dies is told, without its secrets."""
    code = "import sys; sys.exit('the key sk-abcdef is wrong')"
    server = await connected(
        command=sys.executable, args=("-c", code), env={"KEY": "sk-abcdef"}
    )
    status = await server.until(lambda status: status.state == "restarting")
    assert status.error == "it ended with exit code 1 (the key *** is wrong)"


@pytest.mark.gen_test
async def test_mcp_standard_error_is_logged(connected, caplog, capfd):
    """What a server writes to its standard error goes to the log alone, and cut."""
    caplog.set_level(logging.DEBUG, "edwin.tools")
    server = await connected(**odd("stderr=" + "word " * 1000))
    await server.tools()
    (line,) = [record for record in caplog.records if record.msg.endswith("says")]
    assert line.fields["server"] == server.under_test.status.label
    assert line.fields["text"].startswith("word word")
    assert len(line.fields["text"]) <= 2000
    assert "word" not in capfd.readouterr().err


@pytest.mark.gen_test
async def test_mcp_stop_leaves_nothing(tmp_path):
    """A stop ends the server and what it has started, though both ignore all signs."""
    file = tmp_path / "child"
    server = McpServer(**odd("stubborn", f"child={file}"))
    connection = McpConnection(server, label="x")
    await connection.start()
    await connection.tools(ToolSource())
    child = int(file.read_text("ascii"))
    parent = int(Path(f"/proc/{child}/stat").read_text("ascii").split()[3])
    assert alive(child) and alive(parent)
    await connection.stop()
    assert not alive(child) and not alive(parent)
    assert connection.status.state == "stopped"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.gen_test
async def test_mcp_stop_at_any_time(tmp_path):
    """A stop ends a call that is under way, and a server that is just starting."""
    connection = McpConnection(McpServer(**official()), label="x")
    await connection.start()
    (hold,) = await connection.tools(ToolSource(allow=("hold",)))
    call = asyncio.create_task(hold.call({"folder": str(tmp_path)}, CONTEXT))
    begun = await there(tmp_path / "begun")
    await connection.stop()
    with pytest.raises(ToolFailed, match="has gone"):
        await call
    assert not alive(int(begun.read_text("ascii")))
    for rounds in range(3):
        connection = McpConnection(McpServer(**odd("deaf")), label="x")
        await connection.start()
        for _ in range(rounds):
            await asyncio.sleep(0)
        await connection.stop()
        with pytest.raises(ToolsUnavailable):
            await connection.tools(ToolSource())


def test_mcp_server_ends_with_the_gateway(tmp_path):
    """A gateway that is killed takes its servers with it, as far as they read."""
    file = tmp_path / "pid"
    code = f"import os, runpy, sys; open({str(file)!r}, 'w').write(str(os.getpid()));"
    code += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    words = odd()["args"]
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, "-c", code, *words],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
    )
    try:
        assert owner.stdout.readline() == b"ready\n"
        server = os.pidfd_open(int(file.read_text("ascii")))
    finally:
        owner.kill()
        owner.communicate()
    try:
        assert select.select([server], [], [], 10)[0]
    finally:
        os.close(server)


def test_mcp_sdk_is_loaded_where_it_is_needed():
    """A gateway without MCP servers does not load the SDK."""
    code = (
        "import sys, edwin.tools.mcp, edwin.tools.pool; "
        "print({'mcp', 'mcp_types', 'pydantic', 'httpx2', 'anyio'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert (run.stdout, run.stderr) == ("set()\n", "")


def test_mcp_sdk_is_missing():
    """Without the SDK a configuration with MCP servers says which extra brings it."""
    code = "import asyncio, sys; sys.modules['mcp'] = None\n" + MISSING
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert "pip install 'edwin-gateway[mcp]'" in run.stdout, run.stderr


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({"command": "/opt/x/serve", "args": ("--token", "s3cret")}, "serve"),
        ({"command": "serve", "args": ("s3cret",)}, "serve"),
        (
            {"command": "npx", "args": ("-y", "@scope/server-files", "/srv")},
            "npx server-files",
        ),
        ({"command": "/usr/bin/python3", "args": ("-m", "tool")}, "python3 tool"),
        ({"command": "python3", "args": ("/srv/x/tool.py", "s")}, "python3 tool.py"),
        ({"command": "python3", "args": ("-c", "s3cret")}, "python3"),
        ({"command": "node", "args": ("postgres://u:p@h/d",)}, "node"),
        ({"command": "node"}, "node"),
        ({"url": "https://host.example/mcp?key=s3cret"}, "https://host.example"),
        ({"url": "http://[::1]:8000/s3cret"}, "http://[::1]:8000"),
    ],
)
def test_mcp_label(server, expected):
    """A label says which server it is, and nothing that may be secret."""
    assert label(McpServer(**server)) == expected
