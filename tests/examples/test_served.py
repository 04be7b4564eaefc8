"""The examples behind a real gateway: each answers over HTTP, its model scripted."""

from __future__ import annotations

import json
import sys

import pytest

from edwin.config import load
from edwin.gateway import Gateway
from edwin.testing.gateway import TOKEN
from tests.conftest import Client
from tests.process import ROOT, edwin

EXAMPLES = ROOT / "examples"


class Served:
    """A running gateway, as clients know it."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture
def serve(io_loop, upstream, tmp_path, monkeypatch):
    """Return what starts the gateway of an example, and gives a client of it."""
    # As the commands do.
    monkeypatch.syspath_prepend(EXAMPLES)
    started: list[Gateway] = []
    overrides = {
        "gateway.port": 0,
        "gateway.stateDir": str(tmp_path / "state"),
        "gateway.auth.token": TOKEN,
    }
    environ = {
        "HOME": str(tmp_path),
        "OPENAI_BASE_URL": upstream.url,
        "OPENAI_API_KEY": "sk-test",
    }

    async def start(name: str, **more: str) -> Client:
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        path = EXAMPLES / f"{name}.yaml"
        gateway = Gateway(load(path, environ=environ | more, overrides=overrides))
        await gateway.start()
        started.append(gateway)
        address, port = await gateway.listen()
        return Client(Served(f"http://{address}:{port}"))

    yield start
    for gateway in started:
        io_loop.run_sync(gateway.stop)
    for name in ("python_tool", "python_agent", "pydantic_agent"):
        sys.modules.pop(name, None)


def call(name: str, **arguments: object) -> dict:
    """Return a tool call as a model makes it."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": "call_1", "type": "function", "function": function}


@pytest.mark.parametrize("name", ["python_tool", "python_agent", "pydantic_agent"])
def test_examples_are_valid(name, tmp_path):
    """The command takes each example as it stands, with what lies beside it."""
    words = ("gateway", "--config", str(EXAMPLES / f"{name}.yaml"), "--check-config")
    result = edwin(*words, cwd=tmp_path, OPENAI_API_KEY="sk-test")
    assert result.returncode == 0, result.stderr


@pytest.mark.gen_test
async def test_examples_python_tool_served(serve, upstream):
    """The agent's model reserves a table with the Python function."""
    client = await serve("python_tool")
    upstream.reply(tool_calls=[call("reserve_table", place="garden", people=3)])
    upstream.reply("It is reserved.")
    answer = await client.chat("A table in the garden for three", stream=True)
    assert answer.text == "It is reserved."
    result = upstream.requests[1].body["messages"][-1]
    assert result["content"] == "reserved at the garden for 3, under owner"


@pytest.mark.gen_test
async def test_examples_python_agent_served(serve):
    """The switchboard answers without any model."""
    client = await serve("python_agent")
    assert (await client.chat("Grace, please")).text == "Grace has the number 1906. "


@pytest.mark.gen_test
async def test_examples_pydantic_agent_served(serve, upstream):
    """The agent of Pydantic AI answers, its model called over HTTP."""
    client = await serve("pydantic_agent")
    upstream.reply("Hello from the model.")
    answer = await client.chat("Hello", stream=True)
    assert (answer.status, answer.text) == (200, "Hello from the model.")
    await sys.modules["pydantic_agent"].model.client.close()


@pytest.mark.gen_test(timeout=30)
async def test_examples_mcp_filesystem_served(
    serve, upstream, filesystem_server, tmp_path, make_gateway
):
    """The agent's model reads a file with the official filesystem server."""
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "note.txt").write_text("The key is under the mat.")
    node, program = filesystem_server
    config = load(
        EXAMPLES / "mcp_filesystem.yaml",
        environ={"HOME": str(tmp_path), "OPENAI_API_KEY": "sk-test"},
    )
    (source,) = config.agents["main"].tools
    assert source.mcp is not None and source.mcp.command == "npx"
    tool = {
        "mcp": {"command": node, "args": [program, str(folder)]},
        "allow": list(source.allow),
        "prefix": source.prefix,
        "idempotent": source.idempotent,
    }
    agents = {"list": [{"id": "main", "tools": [tool]}]}
    client = Client(await make_gateway({"agents": agents}, upstream=upstream))
    name = f"{source.prefix}read_text_file"
    upstream.reply(tool_calls=[call(name, path=str(folder / "note.txt"))])
    upstream.reply("Under the mat.")
    answer = await client.chat("Where is the key?")
    assert answer.text == "Under the mat."
    messages = upstream.requests[1].body["messages"]
    assert "under the mat" in messages[-1]["content"]
    offered = [t["function"]["name"] for t in upstream.requests[0].body["tools"]]
    assert name in offered and not any("write" in other for other in offered)
