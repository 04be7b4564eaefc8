"""Agents with tools of their own, in front of Anthropic's Messages API."""

from __future__ import annotations

import json

import pytest

from tests import acting
from tests.conftest import Client
from tests.providers.anthropic import claude, text, use
from tests.providers.test_anthropic_request import THOUGHT, check

__all__ = ["claude"]

TOOLS = [{"python": "tests.acting:weather", "idempotent": True}]
ANTHROPIC = {"models": {"providers": {"upstream": {"api": "anthropic-messages"}}}}
LOOK = {"type": "function", "function": {"name": "look"}}
BUDGET = {"upstream": {"api": "anthropic-messages", "options": {"thinking": "budget"}}}


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_agent_thinks_through_its_own_tools(
    claude, make_gateway, stream
):
    """The thinking before a call of the agent's own tools goes back in the same run."""
    acting.reset()
    agents = {"list": [{"id": "main", "instructions": "Be brief.", "tools": TOOLS}]}
    config = {"agents": agents, "models": {"providers": BUDGET}}
    client = Client(await make_gateway(config, upstream=claude))
    claude.message(
        THOUGHT,
        text("I look."),
        use("t1", city="Rome"),
        use("t2", city="Oslo"),
    )
    claude.message(text("Both are fine."))
    answer = await client.chat("Hello", reasoning_effort="low", stream=stream)
    assert answer.text.endswith("Both are fine.")
    assert "hm" not in answer.body
    first, second = (request.body for request in claude.requests)
    assert [tool["name"] for tool in first["tools"]] == ["weather"]
    assert first["thinking"] == second["thinking"]
    check(first)
    check(second)
    _, turn, results = second["messages"]
    assert turn["content"] == [
        THOUGHT,
        text("I look."),
        use("t1", city="Rome"),
        use("t2", city="Oslo"),
    ]
    assert [block["tool_use_id"] for block in results["content"]] == ["t1", "t2"]
    assert sorted(acting.LOG.calls) == [("weather", "Oslo"), ("weather", "Rome")]


@pytest.mark.gen_test
async def test_anthropic_agent_shares_a_turn_with_the_client(claude, make_gateway):
    """Own tools and the client's in one turn come back to the model together."""
    acting.reset()
    agents = {"list": [{"id": "main", "tools": TOOLS}]}
    client = Client(await make_gateway({"agents": agents} | ANTHROPIC, upstream=claude))
    claude.message(use("t1", city="Rome"), use("t2", "look"))
    fields = {"tools": [LOOK], "user": "ada"}
    answer = await client.chat("Hello", **fields)
    (call,) = answer.json["choices"][0]["message"]["tool_calls"]
    assert (call["id"], call["function"]["arguments"]) == ("t2", "{}")
    claude.message(text("Fine."))
    result = {"role": "tool", "tool_call_id": "t2", "content": "a cat"}
    answer = await client.chat(result, **fields)
    assert answer.text == "Fine."
    sent = claude.requests[1].body
    check(sent)
    *_, turn, results = sent["messages"]
    assert turn["content"] == [use("t1", city="Rome"), use("t2", "look")]
    found = {b["tool_use_id"]: b["content"] for b in results["content"]}
    assert found.keys() == {"t1", "t2"}
    assert found["t2"] == [text("a cat")]


@pytest.mark.gen_test
@pytest.mark.parametrize("known", [True, False])
async def test_anthropic_agent_answers_in_a_form(claude, make_gateway, known):
    """A schema goes up, or the model is told of it; the answer is checked."""
    options = {"jsonSchema": known}
    provider = {"api": "anthropic-messages", "options": options}
    config = {"models": {"providers": {"upstream": provider}}}
    client = Client(await make_gateway(config, upstream=claude))
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    wanted = {"name": "place", "schema": schema, "strict": True}
    form = {"type": "json_schema", "json_schema": wanted}
    claude.message(text('{"city":"Rome"}'))
    answer = await client.chat("Hello", response_format=form)
    assert json.loads(answer.text) == {"city": "Rome"}
    sent = claude.requests[0].body
    if known:
        format = {"type": "json_schema", "schema": schema}
        assert sent["output_config"] == {"format": format}
        assert "system" not in sent
    else:
        assert "output_config" not in sent
        assert '"city"' in sent["system"][0]["text"]
    claude.message(text("Rome"))
    answer = await client.chat("Hello", response_format=form)
    assert answer.error["code"] == "structured_output_invalid"
