"""The examples of agents and tools in Python do what they say."""

from __future__ import annotations

import sys

import pytest

from edwin.agents import AgentContext
from edwin.agents.python import load
from edwin.config import load as configured
from edwin.tools import ToolContext, ToolFailed
from edwin.tools.python import function_tool
from edwin.types import TextDelta, ToolFinished
from tests.process import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def agents(tmp_path, monkeypatch):
    """Return a function that returns the agents of an example's configuration."""
    # As the commands do.
    monkeypatch.syspath_prepend(EXAMPLES)

    def of(name):
        environ = {"HOME": str(tmp_path)}
        return configured(EXAMPLES / f"{name}.yaml", environ=environ).agents

    return of


def context(instructions=""):
    return AgentContext(
        *("run_1", "main", "key", "ada", "run_1.1"), instructions=instructions
    )


def ask(text):
    return [{"role": "user", "content": text}]


@pytest.mark.gen_test
async def test_examples_python_agent(agents):
    """An agent that is Python code answers from a list."""
    agent = load(agents("python_agent"))["main"]
    events = agent.answer(ask("Ada, please"), context())
    said = [e.text async for e in events if isinstance(e, TextDelta)]
    assert said == ["Ada has ", "the number 1815. "]
    parts = [{"type": "text", "text": "Who is there?"}]
    events = agent.answer([{"role": "user", "content": parts}], context())
    (said,) = [e.text async for e in events if isinstance(e, TextDelta)]
    assert said.startswith("I know Ada, Grace, Alan.")


@pytest.mark.gen_test
async def test_examples_pydantic_agent(agents, upstream, monkeypatch):
    """An agent of Pydantic AI brings its model and its tools, and can be loaded before
    there is a key."""
    pytest.importorskip("pydantic_ai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
    agent = load(agents("pydantic_agent"))["main"]
    function = {"name": "find_book", "arguments": '{"title": "Emma"}'}
    upstream.reply(tool_calls=[{"id": "c", "type": "function", "function": function}])
    upstream.reply("It is on shelf 3.")
    given = context(agents("pydantic_agent")["main"].instructions)
    events = [event async for event in agent.answer(ask("Emma?"), given)]
    assert (
        ToolFinished("c", "find_book", None, "Emma: shelf 3 (asked by ada)") in events
    )
    said = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert said == "It is on shelf 3."
    sent = upstream.requests[0].body["messages"]
    prompts = [m["content"] for m in sent if m["role"] == "system"]
    assert "\n\n".join(prompts) == (
        "You are a librarian. Say only what the catalogue says.\n\n"
        "Answer in one sentence."
    )
    await sys.modules["pydantic_agent"].model.client.close()


@pytest.mark.gen_test
async def test_examples_python_tool(agents):
    """A function becomes a tool by its signature and its docstring."""
    (source,) = agents("python_tool")["main"].tools
    tool = function_tool(source)
    assert (tool.name, tool.timeout_s) == ("reserve_table", 10)
    assert tool.description == "Reserve a table for tonight."
    assert set(tool.parameters["properties"]) == {"place", "people"}
    context = ToolContext("run_1", "main", "key", "ada", "c", "run_1.1")
    given = {"place": "garden", "people": 4}
    assert tool.fault(given) is None
    assert await tool.call(given, context) == "reserved at the garden for 4, under ada"
    with pytest.raises(ToolFailed, match="the table at the window has 2 chairs"):
        await tool.call({"place": "window", "people": 4}, context)
