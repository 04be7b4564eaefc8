"""What goes to an OpenAI-compatible provider, and what comes of its answers."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import orjson
import pytest

from edwin.config import from_document
from edwin.errors import ConfigError
from edwin.providers.openai_completions import OpenAICompletions
from edwin.testing import USAGE, Reply
from edwin.types import (
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    TurnFinished,
    Usage,
)

MESSAGES = [{"role": "user", "content": "Hello"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOGPROBS = {"content": [{"token": "a", "logprob": -1.0}]}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
SPENT = Usage(USAGE["prompt_tokens"], USAGE["completion_tokens"])


async def ask(provider, messages=MESSAGES, **params):
    """Return the events of one call."""
    request = ModelRequest("m/1", messages, params)
    async with aclosing(provider.stream(request)) as events:
        return [event async for event in events]


def event(document) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def text(*words, **choice) -> bytes:
    delta = {"content": "".join(words)}
    return event({"choices": [{"index": 0, "delta": delta, **choice}]})


@pytest.mark.gen_test
async def test_openai_sends_the_request_as_it_is(acme, upstream):
    """Messages and parameters go up unchanged, streaming and usage are added."""
    messages = [
        {"role": "developer", "content": "be brief", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "ünïcödé 🎉"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    params = {"temperature": 0.5, "tools": [{"type": "function"}], "stop": ["\n"]}
    await ask(await acme(apiKey="sk-1"), messages, **params)
    (request,) = upstream.requests
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "model": "m/1",
        "messages": messages,
        **params,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.headers["Authorization"] == "Bearer sk-1"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"].startswith("edwin-gateway/")


@pytest.mark.gen_test
async def test_openai_sends_the_headers_of_the_configuration(acme, upstream):
    """Configured headers replace Edwin's own; without a key there is no credential."""
    await ask(await acme(headers={"api-key": "k", "user-agent": "mine"}))
    await ask(await acme(apiKey="sk-1", headers={"authorization": "Basic x"}))
    first, second = (request.headers for request in upstream.requests)
    assert "Authorization" not in first
    assert (first["api-key"], first.get_list("User-Agent")) == ("k", ["mine"])
    assert second.get_list("Authorization") == ["Basic x"]


@pytest.mark.gen_test
async def test_openai_streams_text(acme, upstream):
    """Each piece is a delta; the end says why, and what it cost."""
    upstream.reply(deltas=["Hel", "lo"], finish_reason="length", logprobs=[LOGPROBS])
    assert await ask(await acme()) == [
        TextDelta("Hel", LOGPROBS),
        TextDelta("lo"),
        TurnFinished("length", SPENT),
    ]


@pytest.mark.gen_test
async def test_openai_streams_reasoning_and_tool_calls(acme, upstream):
    """Reasoning is kept apart from text, and tool calls come in pieces."""
    upstream.reply(deltas=[{"reasoning_content": "hm"}, "ok"], tool_calls=[CALL])
    assert await ask(await acme()) == [
        ReasoningDelta("hm"),
        TextDelta("ok"),
        ToolCallDelta(0, "c1", "f", ""),
        ToolCallDelta(0, None, None, "{"),
        ToolCallDelta(0, None, None, "}"),
        TurnFinished("tool_calls", SPENT),
    ]


@pytest.mark.gen_test
async def test_openai_accepts_an_empty_answer(acme, upstream):
    """A model may say nothing."""
    upstream.reply("", usage=None)
    assert await ask(await acme()) == [TurnFinished("stop", None)]


@pytest.mark.gen_test
async def test_openai_asks_for_a_whole_answer(acme, upstream):
    """With ``stream: false`` the answer comes in one piece, as one delta."""
    upstream.reply("whole answer", tool_calls=[CALL])
    assert await ask(await acme(stream=False)) == [
        TextDelta("whole answer"),
        ToolCallDelta(0, "c1", "f", "{}"),
        TurnFinished("tool_calls", SPENT),
    ]
    assert upstream.requests[0].body == {"model": "m/1", "messages": MESSAGES}


@pytest.mark.gen_test
async def test_openai_takes_a_whole_answer_for_a_stream(acme, upstream):
    """A server that does not stream is understood all the same."""
    whole = Reply(deltas=["whole"]).whole({"model": "m"})
    upstream.queue(Reply(body=whole))
    assert await ask(await acme()) == [TextDelta("whole"), TurnFinished("stop", SPENT)]


@pytest.mark.gen_test
async def test_openai_can_leave_stream_options_out(acme, upstream):
    """``includeUsage: false`` serves providers that refuse the field."""
    await ask(await acme(options={"includeUsage": False}))
    assert "stream_options" not in upstream.requests[0].body


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("stream", "end"),
    [
        ([text("a"), b"data: [DONE]\n\n"], TurnFinished("stop")),
        ([text("a", finish_reason="length")], TurnFinished("length")),
        (
            [text("a", finish_reason="stop"), event({"choices": [], "usage": USAGE})],
            TurnFinished("stop", SPENT),
        ),
        ([text("a", finish_reason="stop"), b"data: [DONE]"], TurnFinished("stop")),
        (
            [text("a", finish_reason="stop"), b"data: [DONE]\n\ndata: junk\n\n"],
            TurnFinished("stop"),
        ),
    ],
    ids=["no finish reason", "no DONE", "usage, no DONE", "no last line", "more"],
)
async def test_openai_knows_the_end_of_an_answer(acme, upstream, stream, end):
    """A finish reason, or [DONE] after a delta, is the provider's word for the end."""
    upstream.raw(HEAD, *stream)
    assert await ask(await acme()) == [TextDelta("a"), end]


@pytest.mark.gen_test
async def test_openai_does_not_depend_on_the_cuts_of_the_network(acme, upstream):
    """Characters and events that arrive in pieces come out whole."""
    stream = text("ünïcödé 🎉") + text(finish_reason="stop") + b"data: [DONE]\n\n"
    upstream.raw(HEAD, *(stream[i : i + 7] for i in range(0, len(stream), 7)))
    assert await ask(await acme()) == [TextDelta("ünïcödé 🎉"), TurnFinished("stop")]


@pytest.mark.gen_test
async def test_openai_yields_a_burst_without_a_pause(acme, upstream):
    """What one read brings is handed on at once, so that it can go out at once."""
    upstream.reply(deltas=["x"] * 50)
    provider = await acme()
    events = provider.stream(ModelRequest("m", MESSAGES, {}))
    # By the time the first is here, all that was written with it has been read.
    assert await anext(events) == TextDelta("x")
    for _ in range(49):
        with pytest.raises(StopIteration) as result:
            events.__anext__().send(None)
        assert result.value.value == TextDelta("x")
    assert [event async for event in events] == [TurnFinished("stop", SPENT)]


@pytest.mark.gen_test
async def test_openai_sends_large_requests(acme, upstream):
    """Images of several megabytes go up, without a warning about blocking."""
    url = "data:image/png;base64," + "A" * 3_000_000
    image = {"type": "image_url", "image_url": {"url": url}}
    await ask(await acme(), [{"role": "user", "content": [image]}])
    assert upstream.requests[0].body["messages"][0]["content"] == [image]
    assert "Transfer-Encoding" not in upstream.requests[0].headers


@pytest.mark.gen_test
async def test_openai_uses_a_connection_again(acme, upstream):
    """After a whole answer, streamed or not, or an error, the connection is kept."""
    provider = await acme(retries=0)
    upstream.reply("streamed")
    upstream.fail(400)
    upstream.queue(Reply(body=Reply(deltas=["whole"]).whole({})))
    await ask(provider)
    with pytest.raises(Exception, match="refused"):
        await ask(provider)
    await ask(provider)
    await ask(provider)
    assert [request.connection for request in upstream.requests] == [1, 1, 1, 1]


@pytest.mark.gen_test
async def test_openai_waits_a_moment_for_the_end_of_the_body(acme, upstream):
    """A body that ends shortly after [DONE] keeps its connection, one that does not
    end loses it, and neither holds up the answer."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    stream = text("a", finish_reason="stop") + b"data: [DONE]\n\n"
    chunk = b"%x\r\n%s\r\n" % (len(stream), stream)
    upstream.raw(head, chunk, b"0\r\n\r\n", gap_s=0.02, keep_open=True)
    upstream.raw(head, chunk, keep_open=True)
    loop = asyncio.get_running_loop()
    expected = [TextDelta("a"), TurnFinished("stop")]
    began = loop.time()
    assert await ask(await acme()) == expected
    assert await ask(await acme()) == expected
    assert loop.time() - began < 2
    async with asyncio.timeout(1):
        await upstream.requests[1].closed.wait()
    assert not upstream.requests[0].closed.is_set()


@pytest.mark.gen_test
async def test_openai_keeps_no_cookies(acme, upstream):
    """What a provider sets for one caller does not go along with the next."""
    upstream.queue(Reply(deltas=["a"], headers={"Set-Cookie": "who=somebody"}))
    provider = await acme(baseUrl=upstream.url.replace("127.0.0.1", "localhost"))
    await ask(provider)
    await ask(provider)
    assert "Cookie" not in upstream.requests[1].headers


@pytest.mark.gen_test
async def test_openai_uses_only_its_own_proxy(acme, upstream, monkeypatch):
    """A proxy is configured per provider; those of the environment are not used."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    await ask(await acme())
    proxy = upstream.url.removesuffix("/v1")
    await ask(await acme(baseUrl="http://nohost.invalid/v1", options={"proxy": proxy}))
    assert upstream.requests[1].path == "http://nohost.invalid/v1/chat/completions"


@pytest.mark.gen_test
async def test_openai_can_be_started_again(acme):
    """A provider that was stopped may be started again; stopping twice is no fault."""
    provider = await acme()
    await ask(provider)
    await provider.stop()
    await provider.stop()
    with pytest.raises(RuntimeError, match="not started"):
        await anext(provider.stream(ModelRequest("m", MESSAGES, {})))
    await provider.start()
    assert len(await ask(provider)) == 2


@pytest.mark.gen_test
async def test_openai_knows_its_context(acme):
    """The context is the configured one, or a guess that says so."""
    given, guessed = await acme(contextTokens=5000), await acme()
    assert (given.context_tokens, given.context_is_known) == (5000, True)
    assert (guessed.context_tokens, guessed.context_is_known) == (100_000, False)
    assert (given.name, given.retries) == ("acme", 2)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"base_url": None}, "baseUrl"),
        ({"options": {"poxy": "http://p"}}, "options.poxy"),
        ({"options": {"proxy": "p:3128"}}, "options.proxy"),
        ({"options": {"includeUsage": "no"}}, "options.includeUsage"),
    ],
)
def test_openai_refuses_a_configuration(change, key):
    """What cannot work is said when the configuration is read, with its key."""
    document = {"a": {"api": "openai-completions", "baseUrl": "http://h/v1"}}
    config = from_document({"models": {"providers": document}}).providers["a"]
    with pytest.raises(ConfigError) as caught:
        OpenAICompletions(replace(config, **change))
    assert caught.value.message.startswith(f"models.providers.a.{key} ")
