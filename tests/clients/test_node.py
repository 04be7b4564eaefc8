"""The npm packages ``openai`` and ``ai``, unmodified, against the gateway."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.clients.conftest import SCRIPTS

LOOK = [{"id": "c1", "function": {"name": "look", "arguments": '{"at": "home"}'}}]
PROMPT_S = 2

providers = pytest.mark.parametrize("provider", ["compatible", "openai"])


def test_node_lock_is_of_anywhere():
    """The lock says what is installed by digest, not where it comes from."""
    lock = json.loads((SCRIPTS / "package-lock.json").read_text("utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    for name, entry in packages.items():
        assert "integrity" in entry and "resolved" not in entry, name


@pytest.mark.gen_test
async def test_node_openai_whole(run_script, served):
    """A call returns a completion, its request id and its usage."""
    served.upstream.reply("Hello you")
    outcome = await run_script(served.url, "openai", "whole")
    (choice,) = outcome["made"]["choices"]
    assert choice["message"]["content"] == "Hello you"
    assert choice["finish_reason"] == "stop"
    assert outcome["made"]["usage"]["total_tokens"] == 15
    assert outcome["request"].startswith("req_")


@pytest.mark.gen_test
async def test_node_openai_session(run_script, served):
    """``user`` gives a session that the next process goes on with."""
    for _ in range(2):
        await run_script(served.url, "openai", "whole", user="ann")
    sent = served.upstream.requests[-1].body["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "user"]


@pytest.mark.gen_test
async def test_node_openai_stream(run_script, served):
    """A stream is read piece by piece, with the usage in its last chunk."""
    served.upstream.reply("Hello dear reader")
    chunks = await run_script(served.url, "openai", "stream")
    *texts, usage = chunks
    deltas = [chunk["choices"][0]["delta"] for chunk in texts]
    pieces = [delta["content"] for delta in deltas if delta.get("content")]
    assert pieces == ["Hello", " dear", " reader"]
    assert texts[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 5
    served.upstream.reply("Hello dear reader")
    helped = await run_script(served.url, "openai", "helper")
    assert helped["pieces"] == pieces
    assert helped["final"]["choices"][0]["message"]["content"] == "Hello dear reader"


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_node_openai_tools(run_script, served, stream):
    """The package runs the tool that is called, and its result goes up again."""
    served.upstream.reply(tool_calls=LOOK)
    served.upstream.reply("It is a cat")
    final = await run_script(served.url, "openai", "tools", stream=stream)
    assert final == "It is a cat"
    first, second = (request.body for request in served.upstream.requests)
    assert first["tools"][0]["function"]["name"] == "look"
    _, call, result = second["messages"]
    assert call["tool_calls"][0]["function"]["arguments"] == '{"at": "home"}'
    assert (result["tool_call_id"], result["content"]) == ("c1", "a cat at home")


@pytest.mark.gen_test
async def test_node_openai_errors(run_script, served):
    """Each error is the package's class for it, with type, code and param."""
    served.upstream.fail(429)
    served.upstream.fail(401)
    cases = [{"messages": []}, {"temperature": 3}, {"model": "x"}, {}, {}]
    found = await run_script(served.url, "openai", "errors", cases=cases)
    assert all(error.pop("request").startswith("req_") for error in found)
    ours = "invalid_request_error"
    assert [tuple(error.values()) for error in found] == [
        ("BadRequestError", 400, ours, "empty_array", "messages"),
        ("BadRequestError", 400, ours, "decimal_above_max_value", "temperature"),
        ("NotFoundError", 404, ours, "model_not_found", "model"),
        ("RateLimitError", 429, "requests", "provider_rate_limited", None),
        ("InternalServerError", 502, "server_error", "provider_error", None),
        ("AuthenticationError", 401, ours, "invalid_api_key", None),
    ]


@pytest.mark.gen_test
async def test_node_openai_does_not_repeat_what_cannot_succeed(run_script, served):
    """x-should-retry keeps the package from paying three times for one mistake."""
    served.upstream.fail(401)
    error = await run_script(served.url, "openai", "retries")
    assert error["code"] == "provider_error"
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_node_openai_notices_a_broken_stream(run_script, served):
    """Half an answer is an error in the package, never a short success."""
    served.upstream.reply(deltas=["half"], cut=True)
    outcome = await run_script(served.url, "openai", "broken")
    assert outcome["text"] == "half"
    assert outcome["error"]["class"] == "APIError"
    assert outcome["error"]["code"] == "provider_stream_error"


@pytest.mark.gen_test
async def test_node_openai_models(run_script, served):
    """The list of models, and one of them by its name with a colon."""
    outcome = await run_script(served.url, "openai", "models")
    assert outcome["names"] == ["edwin", "edwin:main"]
    assert outcome["one"]["owned_by"] == "edwin"
    assert outcome["none"]["class"] == "NotFoundError"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("script", "argument"),
    [
        ("openai", {"how": "break"}),
        ("openai", {"how": "abort"}),
        ("ai", {"provider": "compatible"}),
        ("ai", {"provider": "openai"}),
    ],
)
async def test_node_client_leaves(start_script, served, script, argument):
    """Whoever stops reading ends the call to the provider, at once."""
    served.upstream.hang(after=["some"])
    running = await start_script(served.url, script, "leave", **argument)
    outcome = await running.outcome()
    assert outcome == ("some" if script == "openai" else {"text": "some", "left": True})
    async with asyncio.timeout(PROMPT_S):
        await served.upstream.requests[0].closed.wait()
    # It was the client's choice, not its end.
    assert running.process.returncode is None
    await running.end()


@pytest.mark.gen_test
@providers
async def test_node_ai_whole(run_script, served, provider):
    """Instructions, parts and ``user`` arrive; text, usage and model come back."""
    served.upstream.reply("Hello you")
    outcome = await run_script(served.url, "ai", "whole", provider=provider, user="ann")
    assert outcome["text"] == "Hello you"
    assert outcome["usage"]["totalTokens"] == 15
    assert outcome["finishReason"] == "stop"
    assert (outcome["modelId"], outcome["warnings"]) == ("edwin", [])
    await run_script(served.url, "ai", "whole", provider=provider, user="ann")
    system, *turns = served.upstream.requests[-1].body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert [m["role"] for m in turns] == ["user", "assistant", "user"]
    assert [part["text"] for part in turns[0]["content"]] == ["Hello", " there"]


@pytest.mark.gen_test
@providers
async def test_node_ai_stream(run_script, served, provider):
    """A stream is read piece by piece, with its usage."""
    served.upstream.reply("Hello dear reader")
    outcome = await run_script(served.url, "ai", "stream", provider=provider)
    assert outcome["pieces"] == ["Hello", " dear", " reader"]
    assert outcome["usage"]["outputTokens"] == 5
    assert outcome["finishReason"] == "stop"


@pytest.mark.gen_test
@providers
async def test_node_ai_tools(run_script, served, provider):
    """The kit runs the tool that is called and goes on, whole and streamed."""
    for _ in range(2):
        served.upstream.reply(tool_calls=LOOK)
        served.upstream.reply("It is a cat")
    outcome = await run_script(served.url, "ai", "tools", provider=provider)
    assert outcome == {
        "whole": "It is a cat",
        "streamed": "It is a cat",
        "tools": ["a cat at home"],
    }
    for request in served.upstream.requests[1::2]:
        _, call, result = request.body["messages"]
        assert call["tool_calls"][0]["id"] == result["tool_call_id"] == "c1"
        assert result["content"] == "a cat at home"


@pytest.mark.gen_test
@providers
async def test_node_ai_object(run_script, served, provider):
    """A schema for the answer goes up to the provider."""
    served.upstream.reply('{"city": "Rome"}')
    outcome = await run_script(served.url, "ai", "object", provider=provider)
    assert outcome == {"city": "Rome"}
    wanted = served.upstream.requests[0].body["response_format"]
    assert wanted["json_schema"]["schema"]["required"] == ["city"]


@pytest.mark.gen_test
@providers
async def test_node_ai_errors(run_script, served, provider):
    """The kit reads message, code and param, and knows what may be repeated."""
    served.upstream.fail(429)
    served.upstream.fail(500)
    cases = [{"name": "x"}, {"temperature": 3}, {}, {}]
    found = await run_script(served.url, "ai", "errors", provider=provider, cases=cases)
    assert {error.pop("class") for error in found} == {"AI_APICallError"}
    assert found[0].pop("message").startswith("no agent answers to model 'x'")
    assert all(error.pop("message", None) for error in found[1:])
    assert [tuple(error.values()) for error in found] == [
        (404, "model_not_found", "model", False),
        (400, "decimal_above_max_value", "temperature", False),
        (429, "provider_rate_limited", None, True),
        (502, "provider_unavailable", None, True),
    ]


@pytest.mark.gen_test
@providers
async def test_node_ai_notices_a_broken_stream(run_script, served, provider):
    """The error comes as a part, with its code; then the cut ends the stream."""
    served.upstream.reply(deltas=["half"], cut=True)
    outcome = await run_script(served.url, "ai", "broken", provider=provider)
    assert outcome["pieces"] == ["half"]
    assert outcome["error"]["class"] == "AI_StreamProviderError"
    assert outcome["error"]["code"] == "provider_stream_error"
    assert outcome["thrown"]["class"] == "AI_APICallError"
    assert outcome["finish"] is None
