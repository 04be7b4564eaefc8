"""The example of agents in front of Ollama, with Ollama's own bytes behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edwin.config import load
from edwin.gateway import Gateway
from edwin.testing import Reply
from edwin.testing.gateway import TOKEN
from tests.conftest import Client
from tests.process import ROOT, edwin

EXAMPLE = ROOT / "examples" / "ollama.yaml"
SAMPLES = ROOT / "tests" / "providers" / "fixtures" / "ollama"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


class Served:
    """A running gateway, as clients know it."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture
def client(io_loop, upstream, tmp_path):
    """Return a client of the gateway that the example configures."""
    overrides = {
        "gateway.port": 0,
        "gateway.stateDir": str(tmp_path / "state"),
        "gateway.auth.token": TOKEN,
    }
    environ = {"HOME": str(tmp_path), "OLLAMA_URL": upstream.url}
    gateway = Gateway(load(EXAMPLE, environ=environ, overrides=overrides))
    io_loop.run_sync(gateway.start)
    address, port = io_loop.run_sync(gateway.listen)
    yield Client(Served(f"http://{address}:{port}"))
    io_loop.run_sync(gateway.stop)


def answer(name: str) -> Reply:
    """Return what Ollama sends, byte for byte."""
    kind = {"Content-Type": "text/event-stream"}
    return Reply(body=(SAMPLES / name).read_bytes(), headers=kind)


def test_ollama_example_is_valid(tmp_path: Path):
    """The command takes the example as it stands."""
    words = ("gateway", "--config", str(EXAMPLE), "--check-config")
    result = edwin(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.gen_test
async def test_ollama_example_answers(client, upstream):
    """A client gets the answer without the thinking, and Ollama what it knows."""
    upstream.queue(answer("reasoning.sse"))
    found = await client.chat("Hello", model="qwen3:8b", max_completion_tokens=9000)
    assert found.json["choices"][0]["message"]["content"] == "Hi there"
    assert found.json["usage"]["completion_tokens"] == 8
    sent = upstream.requests[0].body
    assert (sent["model"], sent["max_tokens"]) == ("qwen3:8b", 2000)
    assert "max_completion_tokens" not in sent

    upstream.queue(answer("text.sse"))
    found = await client.chat("Hello", model="edwin:quick", stream=True)
    assert found.text == "Grüß dich 👋"
    sent = upstream.requests[1].body
    assert (sent["reasoning_effort"], sent["seed"]) == ("none", 1)


@pytest.mark.gen_test
async def test_ollama_example_calls_the_clients_tools(client, upstream):
    """Calls that an old Ollama gives one number come as calls of their own."""
    upstream.queue(answer("tools_old.sse"))
    found = await client.chat("The weather?", tools=[TOOL], stream=True)
    calls = {}
    for event in found.events[:-1]:
        for choice in event["choices"]:
            for piece in choice["delta"].get("tool_calls", ()):
                calls.setdefault(piece["index"], []).append(piece)
    texts = [
        "".join(piece["function"].get("arguments", "") for piece in pieces)
        for pieces in calls.values()
    ]
    assert [json.loads(text) for text in texts] == [
        {"city": "Rome"},
        {"city": "Oslo"},
        {},
    ]
    assert len({pieces[0]["id"] for pieces in calls.values()}) == 3
