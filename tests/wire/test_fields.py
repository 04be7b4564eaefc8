"""What becomes of each of the official request fields, through the endpoint."""

from __future__ import annotations

import pytest

from edwin.wire.fields import FIELDS

# A value of each field that differs from what it is by default.
VALUES = {
    "model": "edwin",
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": False,
    "stream_options": {"include_usage": True},
    "user": "ann",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "implicit"},
    "temperature": 0.5,
    "top_p": 0.5,
    "presence_penalty": 1.5,
    "frequency_penalty": -1.5,
    "max_completion_tokens": 10,
    "max_tokens": 10,
    "n": 2,
    "stop": ["x"],
    "seed": 7,
    "logprobs": True,
    "top_logprobs": 3,
    "logit_bias": {"50": -100},
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "high",
    "verbosity": "low",
    "service_tier": "flex",
    "metadata": {"a": "b"},
    "store": True,
    "moderation": {"model": "m"},
    "web_search_options": {"search_context_size": "low"},
}
OURS = {"model", "messages", "stream", "stream_options"}


def test_fields_are_the_official_37():
    """The table names each of the 37 fields, and the test has a value for each."""
    assert len(FIELDS) == 37
    assert VALUES.keys() == FIELDS.keys()


@pytest.mark.gen_test
@pytest.mark.parametrize("name", FIELDS)
async def test_fields_do_what_the_table_says(client, name):
    """Forwarded fields go up unchanged, refused ones are 400, the others stay here."""
    # Without tools there is nothing to choose, and not every text is JSON.
    tools = VALUES["tools"] if name in ("tool_choice", "parallel_tool_calls") else None
    client.served.upstream.reply("{}")
    answer = await client.chat(**{"tools": tools, name: VALUES[name]})
    if FIELDS[name] == "refused":
        assert (answer.status, answer.error["param"]) == (400, name)
        return
    assert answer.status == 200, answer.body
    body = client.served.upstream.requests[-1].body
    beside = OURS | ({"tools"} if tools else set())
    assert set(body) - beside == ({name} if FIELDS[name] == "forwarded" else set())
    if FIELDS[name] == "forwarded":
        assert body[name] == VALUES[name]


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["tool_choice", "parallel_tool_calls"])
async def test_fields_that_need_tools(client, name):
    """What is said of tools goes up only where there are some."""
    answer = await client.chat(**{name: VALUES[name]})
    assert answer.status == 200, answer.body
    assert set(client.served.upstream.requests[-1].body) <= OURS


@pytest.mark.gen_test
async def test_fields_may_be_null(client):
    """A null is as an absent field."""
    nulls = dict.fromkeys(FIELDS.keys() - {"model", "messages"})
    answer = await client.chat(**nulls)
    assert answer.status == 200, answer.body
    assert set(client.served.upstream.requests[-1].body) == OURS
