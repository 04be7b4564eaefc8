"""What the tests of the Messages API's provider share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from edwin.config import from_document
from edwin.providers.anthropic_messages import AnthropicMessages
from edwin.testing.anthropic import ScriptedAnthropic
from edwin.types import ModelRequest, ToolCallDelta

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def call(id: str = "toolu_1", arguments: str = '{"city":"Rome"}', name="weather"):
    """Return a tool call as OpenAI's messages have it."""
    function = {"name": name, "arguments": arguments}
    return {"id": id, "type": "function", "function": function}


def use(id: str = "toolu_1", name: str = "weather", **given: Any) -> dict[str, Any]:
    """Return a tool_use block."""
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def text(words: str) -> dict[str, Any]:
    """Return a text block."""
    return {"type": "text", "text": words}


async def ask(provider: AnthropicMessages, messages=HELLO, model="claude-x", **params):
    """Return the events of one call."""
    request = ModelRequest(model, messages, params)
    async with aclosing(provider.stream(request)) as events:
        return [event async for event in events]


def calls_of(events) -> dict[int, tuple[str, str, str]]:
    """Return the calls that *events* amount to: id, name and arguments, by place."""
    found: dict[int, tuple[str, str, str]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            id, name, arguments = found.get(event.index, (event.id, event.name, ""))
            found[event.index] = (id, name, arguments + event.arguments)
    return found


@pytest.fixture
def claude(io_loop: IOLoop) -> Iterator[ScriptedAnthropic]:
    """Return a scripted provider of messages, started."""
    scripted = ScriptedAnthropic()
    io_loop.run_sync(scripted.start)
    yield scripted
    io_loop.run_sync(scripted.stop)


@pytest.fixture
def provider(
    io_loop: IOLoop, claude: ScriptedAnthropic
) -> Iterator[Callable[..., Awaitable[AnthropicMessages]]]:
    """Return a function that starts a provider; its arguments are configuration keys.

    It calls the scripted one unless ``baseUrl`` says otherwise.
    """
    started = []

    async def make(**keys: object) -> AnthropicMessages:
        keys = {"api": "anthropic-messages", "baseUrl": claude.url} | keys
        config = from_document({"models": {"providers": {"acme": keys}}})
        made = AnthropicMessages(config.providers["acme"])
        await made.start()
        started.append(made)
        return made

    yield make
    for made in started:
        io_loop.run_sync(made.stop)
