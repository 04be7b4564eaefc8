"""Agents with the tools of a real MCP server, over HTTP."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.conftest import Client
from tests.test_acting import agent, call, check_transcript, sent
from tests.tools.conftest import official
from tests.tools.test_mcp_http import Served


def stdio() -> dict:
    """Return the tool entry of the SDK's server over stdio."""
    server = official()
    return {"mcp": {"command": server["command"], "args": list(server["args"])}}


async def restarted(client: Client) -> None:
    """Wait until the server was started again and can be called."""
    while True:
        (status,) = client.served.gateway.tools.servers()
        if status.restarts and status.state == "ready":
            return
        await asyncio.sleep(0.01)


@pytest.mark.gen_test(timeout=40)
async def test_acting_mcp_stdio(make_gateway):
    """A model calls the tools of a server that the gateway runs."""
    entry = stdio() | {"prefix": "t_", "allow": ["add", "fail"]}
    client = Client(await make_gateway(agent(entry)))
    upstream = client.served.upstream
    upstream.reply(
        tool_calls=[
            call("t_add", "c1", first=2, second=3),
            call("t_fail", "c2", reason="no luck"),
            call("t_weigh", "c3"),
        ]
    )
    upstream.reply("Five.")
    assert (await client.chat("Add", stream=True)).text == "Five."
    names = [t["function"]["name"] for t in upstream.requests[0].body["tools"]]
    assert sorted(names) == ["t_add", "t_fail"]
    results = [m["content"] for m in sent(client, 1)[-3:]]
    assert results[0] == "5"
    assert "no luck" in results[1] and "no tool called 't_weigh'" in results[2]
    check_transcript(sent(client, 1))


@pytest.mark.gen_test(timeout=60)
async def test_acting_mcp_killed_in_the_middle(make_gateway, tmp_path):
    """A server that is killed while it is called gives the model a tool error, and the
    next run works."""
    client = Client(await make_gateway(agent(stdio())))
    upstream = client.served.upstream
    upstream.reply(tool_calls=[call("hold", folder=str(tmp_path))])
    upstream.reply("It has gone.")
    asked = asyncio.create_task(client.chat("Hold"))
    begun = tmp_path / "begun"
    while not begun.exists():
        assert not asked.done(), asked.result().body
        await asyncio.sleep(0.01)
    os.kill(int(begun.read_text("ascii")), signal.SIGKILL)
    answer = await asked
    assert (answer.status, answer.text) == (200, "It has gone.")
    assert sent(client, 1)[-1]["content"].startswith("Error: ")
    check_transcript(sent(client, 1))
    await restarted(client)
    upstream.reply(tool_calls=[call("add", first=20, second=22)])
    upstream.reply("42.")
    assert (await client.chat("Add")).text == "42."
    assert sent(client, 3)[-1]["content"] == "42"


@pytest.mark.gen_test(timeout=60)
async def test_acting_mcp_over_http(make_gateway, tmp_path):
    """So it is with a server over streamable HTTP that is killed and started again."""
    server = Served()
    try:
        client = Client(await make_gateway(agent({"mcp": {"url": server.url}})))
        upstream = client.served.upstream
        upstream.reply(
            tool_calls=[
                call("hold", "c1", folder=str(tmp_path)),
                call("add", "c2", first=2, second=3),
            ]
        )
        upstream.reply("It has gone.")
        asked = asyncio.create_task(client.chat("Go"))
        while not (tmp_path / "begun").exists():
            assert not asked.done(), asked.result().body
            await asyncio.sleep(0.01)
        server.kill()
        answer = await asked
        assert (answer.status, answer.text) == (200, "It has gone.")
        held = sent(client, 1)[-2]["content"]
        assert held.startswith("Error: ")
        check_transcript(sent(client, 1))
        server.start()
        upstream.reply(tool_calls=[call("add", first=20, second=22)])
        await restarted(client)
        upstream.reply("42.")
        assert (await client.chat("Add")).text == "42."
        assert sent(client, 3)[-1]["content"] == "42"
    finally:
        server.kill()


@pytest.mark.gen_test(timeout=40)
async def test_acting_mcp_not_there(make_gateway):
    """Where a server has not said yet which tools it has, the run fails and says so."""
    mcp = {"url": "http://127.0.0.1:9/mcp", "connectSeconds": 0.3}
    client = Client(await make_gateway(agent({"mcp": mcp})))
    answer = await client.chat("Go")
    assert (answer.status, answer.error["code"]) == (503, "tools_unavailable")
    assert answer.headers["Retry-After"]
    assert client.served.upstream.requests == []
