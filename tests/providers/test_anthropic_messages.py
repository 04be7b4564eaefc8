"""What comes of the answers of Anthropic's Messages API, over real HTTP."""

from __future__ import annotations

import asyncio

import pytest

from edwin.config import from_document
from edwin.errors import (
    ConfigError,
    ContextLengthExceeded,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderUnavailable,
)
from edwin.providers.anthropic_messages import AnthropicMessages, api_url
from edwin.providers.base import provider_class
from edwin.providers.probe import probe
from edwin.testing.anthropic import encoded
from edwin.types import (
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    TurnFinished,
    Usage,
)
from tests.providers.anthropic import (
    HEAD,
    HELLO,
    TOOL,
    ask,
    call,
    calls_of,
    claude,
    provider,
    text,
    use,
)

__all__ = ["claude", "provider"]

SPENT = Usage(10, 5)
START = encoded({"type": "message_start", "message": {"usage": {"input_tokens": 10}}})
BEGIN = encoded({"type": "content_block_start", "index": 0, "content_block": text("")})
HI = encoded(
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Hi"},
    }
)
END = encoded(
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 5},
    }
)
STOP = encoded({"type": "message_stop"})


def error(kind: str, message: str):
    return {"type": "error", "error": {"type": kind, "message": message}}


def test_anthropic_is_found_by_its_name():
    """The configuration's ``api`` finds the provider."""
    assert provider_class("anthropic-messages") is AnthropicMessages


@pytest.mark.gen_test
async def test_anthropic_calls_the_api(claude, provider):
    """The address, the key's header and the version are the API's own."""
    await ask(await provider(apiKey="sk-ant-1"))
    (request,) = claude.requests
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == "sk-ant-1"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in request.headers
    assert request.body == {
        "model": "claude-x",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("Hello")]}],
        "stream": True,
    }


@pytest.mark.gen_test
async def test_anthropic_headers_can_be_replaced(claude, provider):
    """Configured headers replace the version, and add betas."""
    headers = {"Anthropic-Version": "2024-01-01", "anthropic-beta": "a,b"}
    await ask(await provider(headers=headers))
    sent = claude.requests[0].headers
    assert sent.get_list("anthropic-version") == ["2024-01-01"]
    assert sent["anthropic-beta"] == "a,b"
    assert "x-api-key" not in sent


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (None, "https://api.anthropic.com/v1"),
        ("https://host", "https://host/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host/anthropic", "https://host/anthropic/v1"),
    ],
)
def test_anthropic_address(base, url):
    """``baseUrl`` may have ``/v1`` at its end, or be missing."""
    keys = {"api": "anthropic-messages"} | ({"baseUrl": base} if base else {})
    config = from_document({"models": {"providers": {"acme": keys}}})
    assert api_url(config.providers["acme"]) == url


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"maxTokens": 0}, "maxTokens must be a number of tokens"),
        ({"maxTokens": True}, "maxTokens must be a number of tokens"),
        ({"thinking": "deep"}, "thinking must be adaptive or budget"),
        ({"cash": True}, "cash is unknown"),
    ],
)
def test_anthropic_refuses_options_that_do_not_fit(options, words):
    """A wrong option is a configuration error that names it."""
    keys = {"api": "anthropic-messages", "options": options}
    config = from_document({"models": {"providers": {"acme": keys}}})
    with pytest.raises(ConfigError, match=words):
        AnthropicMessages(config.providers["acme"])


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False])
async def test_anthropic_answers_with_text(claude, provider, stream):
    """Text comes in its pieces, or in one; the end says what it cost."""
    claude.message(text("Grüß dich 👋"))
    *deltas, end = await ask(await provider(stream=stream))
    assert "".join(delta.text for delta in deltas) == "Grüß dich 👋"
    assert len(deltas) == (2 if stream else 1)
    assert end == TurnFinished("stop", SPENT)
    assert claude.requests[0].body.get("stream", False) is stream


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False])
async def test_anthropic_calls_tools(claude, provider, stream):
    """Calls are numbered among themselves; one without arguments gets an object."""
    claude.message(
        text("Let me see."),
        use("toolu_1", city="Rome", days=[1, 2]),
        use("toolu_2", "now"),
        use("toolu_3", city="Öslo"),
    )
    *deltas, end = await ask(await provider(stream=stream), tools=[TOOL])
    assert calls_of(deltas) == {
        0: ("toolu_1", "weather", '{"city":"Rome","days":[1,2]}'),
        1: ("toolu_2", "now", "{}"),
        2: ("toolu_3", "weather", '{"city":"Öslo"}'),
    }
    assert TextDelta("Let me s") in deltas or TextDelta("Let me see.") in deltas
    assert end.finish_reason == "tool_calls"


@pytest.mark.gen_test
async def test_anthropic_leaves_a_call_that_was_cut_off(claude, provider):
    """Arguments that the length cut off are not made up."""
    claude.message(use("toolu_1", "now"), stop_reason="max_tokens")
    assert await ask(await provider()) == [
        ToolCallDelta(0, "toolu_1", "now", ""),
        TurnFinished("length", SPENT),
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("tool_use", "stop"),
        ("something_new", "stop"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_anthropic_stop_reasons(claude, provider, reason, finish, stream):
    """Why an answer ends is said in OpenAI's words."""
    claude.message(text("a"), stop_reason=reason)
    events = await ask(await provider(stream=stream))
    assert events == [TextDelta("a"), TurnFinished(finish, SPENT)]


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False])
async def test_anthropic_tells_thinking_apart(claude, provider, stream):
    """Thinking is reasoning, never text; what is encrypted is not shown."""
    claude.message(
        {"type": "thinking", "thinking": "hm", "signature": "s1"},
        {"type": "redacted_thinking", "data": "xyz"},
        text("yes"),
    )
    assert await ask(await provider(stream=stream)) == [
        ReasoningDelta("hm"),
        TextDelta("yes"),
        TurnFinished("stop", SPENT),
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False])
async def test_anthropic_counts_the_cache(claude, provider, stream):
    """What was written to the cache and read from it is part of the prompt."""
    tokens = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 100,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    claude.message(text("a"), tokens=tokens)
    *_, end = await ask(await provider(stream=stream))
    assert end.usage == Usage(123, 7, cached_tokens=100, reasoning_tokens=4)


@pytest.mark.gen_test
async def test_anthropic_passes_unknown_events_over(claude, provider):
    """Events, blocks and deltas of later versions change nothing."""
    claude.raw(
        HEAD + START,
        encoded({"type": "ping"}) + b": comment\n\n",
        encoded({"type": "from_the_future", "index": "x"}),
        encoded(
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "server_tool_use", "id": "s", "name": "web"},
            }
        ),
        encoded(
            {
                "type": "content_block_delta",
                "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": "{}"},
            }
        ),
        encoded({"type": "content_block_stop", "index": 1}),
        BEGIN,
        encoded(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "citations_delta", "citation": {}},
            }
        ),
        HI + END + STOP,
    )
    assert await ask(await provider()) == [
        TextDelta("Hi"),
        TurnFinished("stop", SPENT),
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "stream",
    [
        [START, BEGIN, HI],
        [START, BEGIN, HI, encoded({"type": "content_block_stop", "index": 0})],
        [START, BEGIN, HI, STOP],
        [START],
        [],
    ],
    ids=["in the text", "after the block", "no reason", "at the start", "empty"],
)
async def test_anthropic_knows_an_answer_that_broke_off(claude, provider, stream):
    """Without a stop reason there was no end, however cleanly the stream ended."""
    claude.raw(HEAD, *stream)
    with pytest.raises(ProviderStreamError):
        await ask(await provider())


@pytest.mark.gen_test
async def test_anthropic_takes_an_end_without_its_last_event(claude, provider):
    """A connection lost after the stop reason loses nothing."""
    claude.raw(HEAD, START, BEGIN, HI, END)
    assert await ask(await provider()) == [
        TextDelta("Hi"),
        TurnFinished("stop", SPENT),
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "junk",
    [
        b"data: {nonsense\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": []}\n\n',
        encoded({"type": "content_block_delta", "index": 7, "delta": {"type": "x"}}),
        encoded({"type": "content_block_start", "index": 0}),
        encoded(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": 5},
            }
        ),
    ],
)
async def test_anthropic_refuses_what_is_no_answer(claude, provider, junk):
    """What cannot be read is a fault of the stream."""
    claude.raw(HEAD, START, BEGIN, junk, END, STOP)
    with pytest.raises(ProviderStreamError):
        await ask(await provider())


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (
            400,
            ("invalid_request_error", "prompt is too long: 201 tokens > 200 maximum"),
            ContextLengthExceeded,
        ),
        (
            400,
            (
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 1 + 2 > 2",
            ),
            ContextLengthExceeded,
        ),
        (401, ("authentication_error", "invalid x-api-key"), ProviderError),
        (404, ("not_found_error", "model: claude-0"), ProviderError),
        (500, ("api_error", "Internal server error"), ProviderUnavailable),
        (529, ("overloaded_error", "Overloaded"), ProviderUnavailable),
    ],
)
async def test_anthropic_refusals(claude, provider, status, said, kind):
    """A refusal is the error that it means, and says nothing of the key."""
    claude.fail(status, error(*said))
    with pytest.raises(kind) as caught:
        await ask(await provider(apiKey="sk-ant-secret"))
    assert "secret" not in caught.value.message
    if status == 401:
        assert "apiKey is missing or wrong" in caught.value.message
        assert caught.value.should_retry is False


@pytest.mark.gen_test
async def test_anthropic_asks_to_wait(claude, provider):
    """A 429 says how long to wait."""
    said = error("rate_limit_error", "This request would exceed your rate limit")
    claude.fail(429, said, headers={"retry-after": "7"})
    with pytest.raises(ProviderRateLimited) as caught:
        await ask(await provider())
    assert caught.value.retry_after_s == 7


@pytest.mark.gen_test
async def test_anthropic_errors_in_a_stream(claude, provider):
    """An error event is an error: before the text by its type, after it a break."""
    event = encoded(error("overloaded_error", "Overloaded"))
    claude.raw(HEAD, START, event)
    with pytest.raises(ProviderUnavailable):
        await ask(await provider())
    claude.raw(HEAD, START, BEGIN, HI, event)
    with pytest.raises(ProviderStreamError):
        await ask(await provider())


@pytest.mark.gen_test
async def test_anthropic_cancelling_closes_the_connection(claude, provider):
    """Whoever stops reading closes the connection at once."""
    claude.raw(HEAD + START + BEGIN + HI, keep_open=True)
    asked = await provider()
    stream = asked.stream(ModelRequest("claude-x", HELLO, {}))
    assert await anext(stream) == TextDelta("Hi")
    waiting = asyncio.ensure_future(anext(stream))
    request = await claude.arrival()
    await asyncio.sleep(0)
    waiting.cancel()
    await request.closed.wait()
    with pytest.raises(asyncio.CancelledError):
        await waiting


THOUGHT = {"type": "thinking", "thinking": "Rome, then.", "signature": "sig=="}
HIDDEN = {"type": "redacted_thinking", "data": "opaque"}
MODEL = "claude-sonnet-4-5"


def answered(*ids: str):
    return [
        {"role": "tool", "tool_call_id": id, "content": f"{id} is fine"} for id in ids
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False])
async def test_anthropic_gives_thinking_back(claude, provider, stream):
    """Thinking before a call goes back unchanged, as long as the loop goes on."""
    asked = await provider(stream=stream)
    params = {"reasoning_effort": "low", "tools": [TOOL]}
    claude.message(THOUGHT, HIDDEN, text("I look."), use("t1"), THOUGHT, use("t2"))
    await ask(asked, model=MODEL, **params)
    turn = {"role": "assistant", "content": "I look."}
    turn["tool_calls"] = [call("t1", "{}"), call("t2", "{}")]
    loop = [*HELLO, turn, *answered("t1", "t2")]
    claude.message(use("t3"))
    await ask(asked, loop, model=MODEL, **params)
    sent = claude.requests[1].body
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    blocks = [THOUGHT, HIDDEN, text("I look."), use("t1"), THOUGHT, use("t2")]
    assert sent["messages"][1]["content"] == blocks

    # The model did not think again before its next call, and need not have.
    more = {"role": "assistant", "content": None, "tool_calls": [call("t3", "{}")]}
    claude.message(text("Fine."))
    await ask(asked, [*loop, more, *answered("t3")], model=MODEL, **params)
    sent = claude.requests[2].body
    assert sent["thinking"]["type"] == "enabled"
    assert sent["messages"][3]["content"] == [use("t3")]


@pytest.mark.gen_test
async def test_anthropic_goes_on_without_thinking_it_does_not_know(claude, provider):
    """A loop that another process began goes on with thinking off, for its rest."""
    asked = await provider()
    turn = {"role": "assistant", "content": None, "tool_calls": [call("t9", "{}")]}
    loop = [*HELLO, turn, *answered("t9")]
    await ask(asked, loop, model=MODEL, reasoning_effort="low", tools=[TOOL])
    assert "thinking" not in claude.requests[0].body
    answer = {"role": "assistant", "content": "Fine."}
    later = [*loop, answer, *HELLO]
    await ask(asked, later, model=MODEL, reasoning_effort="low", tools=[TOOL])
    assert claude.requests[1].body["thinking"]["type"] == "enabled"


@pytest.mark.gen_test
async def test_anthropic_adaptive_thinking_needs_no_memory(claude, provider):
    """Newer models may begin without thinking, and think on."""
    turn = {"role": "assistant", "content": None, "tool_calls": [call("t9", "{}")]}
    loop = [*HELLO, turn, *answered("t9")]
    await ask(await provider(), loop, model="claude-opus-4-8", reasoning_effort="high")
    sent = claude.requests[0].body
    assert sent["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert sent["output_config"] == {"effort": "high"}


@pytest.mark.gen_test
async def test_anthropic_is_asked_for_its_models():
    """The doctor's question goes to the API's own list, with its headers."""
    heads = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        body = b'{"data":[{"type":"model","id":"claude-x"}],"has_more":false}'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        writer.write(
            head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        keys = {"api": "anthropic-messages", "baseUrl": url, "apiKey": "sk-1"}
        config = from_document({"models": {"providers": {"acme": keys}}})
        seen = await probe(config.providers["acme"], 5.0)
    assert (seen.status, seen.models) == (200, {"claude-x"})
    (head,) = heads
    line, *fields = head.decode().lower().split("\r\n")
    assert line.startswith("get /v1/models ")
    assert {"x-api-key: sk-1", "anthropic-version: 2023-06-01"} <= set(fields)
    assert "authorization" not in head.decode().lower()
