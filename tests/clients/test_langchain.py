"""langchain-openai, unmodified, against the gateway."""

from __future__ import annotations

import asyncio

import openai
import pytest

from edwin.testing.gateway import TOKEN
from tests.conftest import Client

LOOK = [{"id": "c1", "function": {"name": "look", "arguments": '{"at": "home"}'}}]
TOO_LONG = {
    "message": "This model's maximum context length is 8 tokens; you sent 9.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
PROMPT_S = 2


@pytest.fixture
def langchain(monkeypatch):
    """Return the package, which calls nobody but the model."""
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    try:
        import langchain_openai
    except ImportError:
        pytest.fail(
            "langchain-openai is missing: tools/test installs it, "
            "as does pip install -e '.[test,clients]'",
            pytrace=False,
        )
    return langchain_openai


@pytest.fixture
def chat(langchain, served, io_loop):
    """Return a function that makes chat models: ``chat(temperature=1)``."""
    client = openai.DefaultHttpxClient()
    async_client = openai.DefaultAsyncHttpxClient()

    def make(**settings):
        plain = {
            "model": "edwin",
            "base_url": served.url + "/v1",
            "api_key": TOKEN,
            "max_retries": 0,
            "http_client": client,
            "http_async_client": async_client,
        }
        return langchain.ChatOpenAI(**{**plain, **settings})

    yield make
    client.close()
    io_loop.run_sync(async_client.aclose)


@pytest.fixture
def look(langchain):
    """Return a tool."""
    from langchain_core.tools import tool

    @tool
    def look(at: str) -> str:
        """Look at a place."""
        return f"a cat at {at}"

    return look


async def collected(stream):
    """Return the pieces of *stream*, and the message they add up to."""
    pieces = [piece async for piece in stream]
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    return [piece.content for piece in pieces if piece.content], whole


@pytest.mark.gen_test
async def test_langchain_whole(chat, served):
    """Two system messages go up as they stand; text and usage come back."""
    served.upstream.reply("Hello you")
    messages = [("system", "Be kind."), ("system", "Be brief."), ("human", "Hello")]
    made = await asyncio.to_thread(chat().invoke, messages)
    assert made.content == "Hello you"
    assert made.usage_metadata["total_tokens"] == 15
    assert made.response_metadata["model_name"] == "edwin"
    assert made.response_metadata["finish_reason"] == "stop"
    sent = served.upstream.requests[0].body["messages"]
    assert [(m["role"], m["content"]) for m in sent] == [
        ("system", "Be kind."),
        ("system", "Be brief."),
        ("user", "Hello"),
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize("place", ["model_kwargs", "extra_body"])
async def test_langchain_session(chat, served, place):
    """``user`` gives a session, wherever the package is told to put it."""
    model = chat(**{place: {"user": "ann"}})
    await model.ainvoke("one")
    await model.ainvoke("two")
    sent = served.upstream.requests[-1].body["messages"]
    assert [m["content"] for m in sent] == ["one", "one", "two"]


@pytest.mark.gen_test
async def test_langchain_stream(chat, served):
    """A stream is read piece by piece, with usage where it is asked for."""
    served.upstream.reply("Hello dear reader")
    pieces = await asyncio.to_thread(
        lambda: [piece.content for piece in chat().stream("Hello") if piece.content]
    )
    assert pieces == ["Hello", " dear", " reader"]
    served.upstream.reply("Hello dear reader")
    again, whole = await collected(chat(stream_usage=True).astream("Hello"))
    assert again == pieces
    assert whole.usage_metadata["output_tokens"] == 5
    assert whole.response_metadata["finish_reason"] == "stop"


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_langchain_tools(chat, served, look, stream):
    """A call comes back as the package's own, and its result goes up again."""
    served.upstream.reply(tool_calls=LOOK)
    served.upstream.reply("It is a cat")
    model = chat().bind_tools([look])
    if stream:
        _, message = await collected(model.astream("Hello"))
    else:
        message = await model.ainvoke("Hello")
    (call,) = message.tool_calls
    assert (call["name"], call["args"]) == ("look", {"at": "home"})
    last = await model.ainvoke([("human", "Hello"), message, look.invoke(call)])
    assert last.content == "It is a cat"
    sent = served.upstream.requests[-1].body["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == "c1"


@pytest.mark.gen_test
async def test_langchain_structured_output(chat, served):
    """A schema for the answer goes up to the provider."""
    schema = {
        "title": "City",
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    served.upstream.reply('{"city": "Rome"}')
    model = chat().with_structured_output(schema, method="json_schema")
    assert await model.ainvoke("Where?") == {"city": "Rome"}
    wanted = served.upstream.requests[0].body["response_format"]
    assert wanted["json_schema"]["schema"]["required"] == ["city"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("settings", "failure", "kind", "code", "param"),
    [
        (
            {"temperature": 3},
            None,
            "OpenAIInvalidRequestError",
            "decimal_above_max_value",
            "temperature",
        ),
        (
            {"model": "x"},
            None,
            "OpenAIModelNotFoundError",
            "model_not_found",
            "model",
        ),
        (
            {"api_key": "wrong"},
            None,
            "OpenAIAuthenticationError",
            "invalid_api_key",
            None,
        ),
        ({}, (429,), "OpenAIRateLimitError", "provider_rate_limited", None),
        ({}, (500,), "OpenAIAPIError", "provider_unavailable", None),
        (
            {},
            (400, {"error": TOO_LONG}),
            "OpenAIContextOverflowError",
            "context_length_exceeded",
            "messages",
        ),
    ],
)
async def test_langchain_errors(chat, served, settings, failure, kind, code, param):
    """Each error is the package's class for it, with code and param."""
    if failure:
        served.upstream.fail(*failure)
    with pytest.raises(openai.APIStatusError) as caught:
        await chat(**settings).ainvoke("Hello")
    error = caught.value
    assert type(error).__name__ == kind
    assert (error.code, error.param) == (code, param)


@pytest.mark.gen_test
async def test_langchain_knows_a_full_context(chat, make_gateway):
    """A conversation that Edwin itself finds too long is the package's overflow."""
    small = await make_gateway({"agents": {"defaults": {"contextTokens": 1}}})
    with pytest.raises(openai.BadRequestError) as caught:
        await chat(base_url=small.url + "/v1").ainvoke("Can you read all of this?")
    assert type(caught.value).__name__ == "OpenAIContextOverflowError"
    assert small.upstream.requests == []


@pytest.mark.gen_test
async def test_langchain_notices_a_broken_stream(chat, served):
    """Half an answer is an error in the package, never a short success."""
    served.upstream.reply(deltas=["half"], cut=True)
    pieces = []
    with pytest.raises(openai.APIError) as caught:
        async for piece in chat().astream("Hello"):
            pieces.append(piece.content)
    assert "".join(pieces) == "half"
    assert caught.value.code == "provider_stream_error"


@pytest.mark.gen_test
async def test_langchain_leaves(chat, served):
    """Closing the package's stream ends the call to the provider, at once."""
    served.upstream.hang(after=["some"])
    stream = chat(model_kwargs={"user": "ann"}).astream("Hello")
    async for piece in stream:
        if piece.content:
            break
    await stream.aclose()
    async with asyncio.timeout(PROMPT_S):
        await served.upstream.requests[0].closed.wait()
    assert (await Client(served).chat("next", user="ann")).status == 200
