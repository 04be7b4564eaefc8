"""openai-python, unmodified, against the gateway."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai.types.chat import ChatCompletion

from edwin.testing.gateway import TOKEN
from tests.conftest import Client

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
def sync(served, io_loop):
    """Return a function that runs *work* on a synchronous client, off the loop."""
    with openai.OpenAI(
        base_url=served.url + "/v1", api_key=TOKEN, max_retries=0
    ) as client:

        async def run(work):
            return await io_loop.run_in_executor(None, work, client)

        yield run


@pytest.fixture
def asynchronous(served, io_loop):
    """Return an asynchronous client."""
    client = openai.AsyncOpenAI(
        base_url=served.url + "/v1/", api_key=TOKEN, max_retries=0
    )
    yield client
    io_loop.run_sync(client.close)


@pytest.mark.gen_test
async def test_openai_client_whole(sync, served):
    """A call returns a completion, its request id and its usage."""
    served.upstream.reply("Hello you")
    made = await sync(
        lambda c: c.chat.completions.create(model="edwin", messages=HELLO, user="ann")
    )
    assert isinstance(made, ChatCompletion)
    assert made.choices[0].message.content == "Hello you"
    assert made._request_id.startswith("req_")
    assert made.usage.total_tokens == 15
    # The strictest reading there is: nothing missing, nothing of another type.
    ChatCompletion.model_validate(made.model_dump(), strict=True)


@pytest.mark.gen_test
async def test_openai_client_stream(sync, served):
    """A stream is read to its end, with the usage in its last chunk."""
    served.upstream.reply("Hello dear reader")

    def work(client):
        stream = client.chat.completions.create(
            model="edwin",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
        return list(stream)

    chunks = await sync(work)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == (
        "Hello dear reader"
    )
    assert chunks[-1].usage.completion_tokens == 5


@pytest.mark.gen_test
async def test_openai_client_async(asynchronous, served):
    """The asynchronous client gets the same, whole and streamed."""
    served.upstream.reply("one")
    whole = await asynchronous.chat.completions.create(model="edwin", messages=HELLO)
    assert whole.choices[0].message.content == "one"
    served.upstream.reply("two three")
    stream = await asynchronous.chat.completions.create(
        model="edwin", messages=HELLO, stream=True
    )
    pieces = [c.choices[0].delta.content or "" async for c in stream]
    assert "".join(pieces) == "two three"


@pytest.mark.gen_test
async def test_openai_client_tools(asynchronous, served):
    """Tool calls come back whole and streamed, and their results go up again."""
    calls = [{"id": "c1", "function": {"name": "look", "arguments": "{}"}}]
    served.upstream.reply(tool_calls=calls)
    whole = await asynchronous.chat.completions.create(
        model="edwin", messages=HELLO, tools=[TOOL]
    )
    message = whole.choices[0].message
    assert message.tool_calls[0].function.name == "look"
    served.upstream.reply("seen")
    answer = {"role": "tool", "tool_call_id": "c1", "content": "a cat"}
    # The message as the SDK dumps it, nulls and all.
    again = [*HELLO, message.model_dump(), answer]
    last = await asynchronous.chat.completions.create(
        model="edwin", messages=again, tools=[TOOL]
    )
    assert last.choices[0].message.content == "seen"
    sent = served.upstream.requests[-1].body["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool"]
    served.upstream.reply(tool_calls=calls)
    async with asynchronous.chat.completions.stream(
        model="edwin", messages=HELLO, tools=[TOOL]
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == "{}"


@pytest.mark.gen_test
async def test_openai_client_models(asynchronous):
    """The list of models, and one of them by its name with a colon."""
    names = [model.id async for model in asynchronous.models.list()]
    assert names == ["edwin", "edwin:main"]
    assert (await asynchronous.models.retrieve("edwin:main")).owned_by == "edwin"
    with pytest.raises(openai.NotFoundError):
        await asynchronous.models.retrieve("gpt-4o")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("fields", "failure", "kind", "code", "param"),
    [
        ({"messages": []}, None, openai.BadRequestError, "empty_array", "messages"),
        (
            {"temperature": 3},
            None,
            openai.BadRequestError,
            "decimal_above_max_value",
            "temperature",
        ),
        ({"model": "x"}, None, openai.NotFoundError, "model_not_found", "model"),
        ({}, 429, openai.RateLimitError, "provider_rate_limited", None),
        ({}, 401, openai.InternalServerError, "provider_error", None),
        ({}, 500, openai.InternalServerError, "provider_unavailable", None),
    ],
)
async def test_openai_client_errors(
    asynchronous, served, fields, failure, kind, code, param
):
    """Each error is the SDK's class for it, with code, param and request id."""
    if failure:
        served.upstream.fail(failure)
    with pytest.raises(kind) as caught:
        await asynchronous.chat.completions.create(
            **{"model": "edwin", "messages": HELLO, **fields}
        )
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.request_id.startswith("req_")


@pytest.mark.gen_test
async def test_openai_client_wrong_key(served):
    """A wrong key is an authentication error."""
    async with openai.AsyncOpenAI(
        base_url=served.url + "/v1", api_key="wrong", max_retries=0
    ) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.gen_test
async def test_openai_client_notices_a_broken_stream(asynchronous, served):
    """Half an answer is an error in the SDK, never a short success."""
    served.upstream.reply(deltas=["half"], cut=True)
    pieces = []
    with pytest.raises(openai.APIError) as caught:
        stream = await asynchronous.chat.completions.create(
            model="edwin", messages=HELLO, stream=True
        )
        async for chunk in stream:
            pieces.append(chunk.choices[0].delta.content or "")
    assert "".join(pieces) == "half"
    assert caught.value.code == "provider_stream_error"


@pytest.mark.gen_test
async def test_openai_client_does_not_repeat_what_cannot_succeed(served):
    """x-should-retry keeps the SDK from paying three times for one mistake."""
    served.upstream.fail(401)
    async with openai.AsyncOpenAI(
        base_url=served.url + "/v1", api_key=TOKEN, max_retries=2
    ) as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="edwin", messages=HELLO)
    assert len(served.upstream.requests) == 1


@pytest.mark.gen_test
async def test_openai_client_leaves(asynchronous, served):
    """Closing the SDK's stream ends the run at the provider."""
    served.upstream.hang(after=["some"])
    stream = await asynchronous.chat.completions.create(
        model="edwin", messages=HELLO, stream=True, user="ann"
    )
    await anext(aiter(stream))
    await stream.close()
    async with asyncio.timeout(1):
        await served.upstream.requests[0].closed.wait()
    assert (await Client(served).chat("next", user="ann")).status == 200
