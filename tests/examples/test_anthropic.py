"""The example of agents of Anthropic's models, with a scripted API behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edwin.config import load
from edwin.gateway import Gateway
from edwin.testing.anthropic import ScriptedAnthropic
from edwin.testing.gateway import TOKEN
from tests.conftest import Client
from tests.process import ROOT, edwin

EXAMPLE = ROOT / "examples" / "anthropic.yaml"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
THOUGHT = {"type": "thinking", "thinking": "Rome, then.", "signature": "sig=="}
USE = {
    "type": "tool_use",
    "id": "toolu_1",
    "name": "weather",
    "input": {"city": "Rome"},
}
MARK = {"cache_control": {"type": "ephemeral"}}


class Served:
    """A running gateway, as clients know it."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture
def claude(io_loop):
    """Return a scripted provider of messages, started."""
    scripted = ScriptedAnthropic()
    io_loop.run_sync(scripted.start)
    yield scripted
    io_loop.run_sync(scripted.stop)


@pytest.fixture
def client(io_loop, claude, tmp_path):
    """Return a client of the gateway that the example configures."""
    overrides = {
        "gateway.port": 0,
        "gateway.stateDir": str(tmp_path / "state"),
        "gateway.auth.token": TOKEN,
    }
    environ = {
        "HOME": str(tmp_path),
        "ANTHROPIC_API_KEY": "sk-ant-1",
        "ANTHROPIC_BASE_URL": claude.url,
    }
    gateway = Gateway(load(EXAMPLE, environ=environ, overrides=overrides))
    io_loop.run_sync(gateway.start)
    address, port = io_loop.run_sync(gateway.listen)
    yield Client(Served(f"http://{address}:{port}"))
    io_loop.run_sync(gateway.stop)


def test_anthropic_example_is_valid(tmp_path: Path):
    """The command takes the example as it stands."""
    words = ("gateway", "--config", str(EXAMPLE), "--check-config")
    result = edwin(*words, cwd=tmp_path, ANTHROPIC_API_KEY="sk-ant-1")
    assert result.returncode == 0, result.stderr


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_example_answers(client, claude, stream):
    """A client of OpenAI's API is answered by a model of Anthropic's."""
    claude.reply("Hello to you")
    answer = await client.chat("Hello", stream=stream, seed=1, temperature=1.2)
    assert answer.text == "Hello to you"
    (request,) = claude.requests
    assert request.headers["x-api-key"] == "sk-ant-1"
    assert request.body == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 8000,
        "system": [
            {
                "type": "text",
                "text": "You are a helpful assistant. Answer briefly.",
                **MARK,
            }
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello", **MARK}]}
        ],
        "temperature": 1,
        "stream": True,
    }


@pytest.mark.gen_test
async def test_anthropic_example_thinks_through_the_clients_tools(client, claude):
    """The client answers a call, and the model gets its thinking back with it."""
    claude.message(THOUGHT, USE)
    asked = {"role": "user", "content": "The weather?"}
    answer = await client.chat(asked, model="edwin:thinker", tools=[TOOL])
    choice = answer.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert "Rome, then." not in answer.body
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}

    claude.reply("It is warm.")
    result = {"role": "tool", "tool_call_id": call["id"], "content": "31 °C"}
    answer = await client.chat(
        asked, choice["message"], result, model="edwin:thinker", tools=[TOOL]
    )
    assert answer.text == "It is warm."
    first, second = (request.body for request in claude.requests)
    thinking = {"type": "enabled", "budget_tokens": 4000}
    assert first["thinking"] == second["thinking"] == thinking
    assert second["messages"][1:] == [
        {"role": "assistant", "content": [THOUGHT, USE]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "31 °C"}],
                    **MARK,
                }
            ],
        },
    ]


@pytest.mark.gen_test
async def test_anthropic_example_tells_what_is_wrong(client, claude):
    """The client learns what the API refused, and nothing of the key."""
    said = {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}
    claude.fail(400, {"type": "error", "error": said})
    answer = await client.chat("Hello")
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    said = {"type": "authentication_error", "message": "invalid x-api-key"}
    claude.fail(401, {"type": "error", "error": said})
    answer = await client.chat("Hello")
    assert answer.error["code"] == "provider_error"
    assert "models.providers.claude.apiKey" in answer.error["message"]
