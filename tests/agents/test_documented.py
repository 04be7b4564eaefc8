"""The agents in the documents can be loaded, and answer."""

from __future__ import annotations

import pytest

from edwin.agents import AgentContext
from edwin.agents.python import load
from edwin.config import load as configured
from edwin.types import Agent, ReasoningDelta, TextDelta, TurnFinished, Usage
from tests.test_docs import DOCS, blocks

PAGE = DOCS["agents"]
HELLO = [{"role": "user", "content": "Hello Ada"}]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return the folder with the documented files, where the commands find them."""
    for block in blocks(PAGE, "python") + blocks(PAGE, "yaml"):
        name, _, _ = block.removeprefix("# ").partition("\n")
        (tmp_path / name).write_text(block, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


async def answer(agent):
    context = AgentContext("run_1", "main", "key", "ada", "run_1.1")
    return [event async for event in agent.answer(HELLO, context)]


def named(name):
    (agent,) = load({"x": Agent("x", f"python/{name}", python=name)}).values()
    return agent


@pytest.mark.gen_test
async def test_agents_documented_configuration(written):
    """The first agent is what the documented configuration names."""
    file = written / "edwin.yaml"
    agents = configured(file, environ={"HOME": str(written)}).agents
    events = await answer(load(agents)["main"])
    assert events == [TextDelta("Hello "), TextDelta("Ada "), TurnFinished("stop")]


@pytest.mark.gen_test
async def test_agents_documented_context(written):
    """The one that uses its context gives events."""
    reasoning, *texts, end = await answer(named("shop:clerk"))
    assert reasoning == ReasoningDelta("ada wants to know")
    assert "".join(t.text for t in texts).endswith("Nothing on shelf 3. ")
    assert end == TurnFinished("stop", Usage(12, 15))


@pytest.mark.gen_test
async def test_agents_documented_pydantic(written):
    """So does the one of Pydantic AI."""
    pytest.importorskip("pydantic_ai")
    events = await answer(named("advisors:weather"))
    (finished,) = [e for e in events if hasattr(e, "result")]
    assert finished.result == "20 degrees in a, ada"
