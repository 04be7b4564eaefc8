"""The scripted upstream: what tests rely on when they rely on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import openai
import orjson
import pytest
from tornado.ioloop import IOLoop

from edwin.testing import Reply, ScriptedUpstream, words

HELLO = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hello to you"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
WHOLE = {"model": "m", "messages": HELLO["messages"]}


@pytest.fixture
def upstream(io_loop: IOLoop) -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    io_loop.run_sync(upstream.start)
    yield upstream
    io_loop.run_sync(upstream.stop)


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[dict | str]:
    async for line in response.content:
        if line.startswith(b"data: "):
            data = line[6:].strip()
            yield "[DONE]" if data == b"[DONE]" else orjson.loads(data)


async def read(upstream: ScriptedUpstream, body: dict = HELLO) -> list[dict | str]:
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{upstream.url}/chat/completions", json=body) as response,
    ):
        assert response.content_type == "text/event-stream"
        return [event async for event in events(response)]


def text_of(chunks: list[dict | str]) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        if isinstance(chunk, dict)
        for choice in chunk["choices"]
    )


@pytest.mark.parametrize("text", ["", "one", " two  words\n", "  "])
def test_testing_words_lose_nothing(text):
    """Words joined are the text again."""
    assert "".join(words(text)) == text


@pytest.mark.gen_test
async def test_testing_echoes_by_default(upstream):
    """With nothing queued, the last user message comes back word by word."""
    chunks = await read(upstream)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-3]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": " to"},
        {"content": " you"},
    ]
    assert chunks[-3]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["choices"] == [] and chunks[-2]["usage"]["total_tokens"] == 15
    assert chunks[-1] == "[DONE]"


@pytest.mark.gen_test
async def test_testing_speaks_to_the_openai_sdk(upstream):
    """The official SDK reads its answers, streamed and whole."""
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    async with openai.AsyncOpenAI(base_url=upstream.url, api_key="k") as client:
        upstream.reply("whole answer", finish_reason="length")
        whole = await client.chat.completions.create(**WHOLE)
        upstream.reply(tool_calls=[call], usage=None)
        stream = await client.chat.completions.create(**HELLO)
        chunks = [chunk async for chunk in stream]
        upstream.fail(404, {"error": {"message": "no such model"}})
        with pytest.raises(openai.NotFoundError, match="no such model"):
            await client.chat.completions.create(**WHOLE)
    assert whole.choices[0].message.content == "whole answer"
    assert whole.choices[0].finish_reason == "length"
    calls = [
        call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()
    ]
    assert [calls[0].id, calls[0].function.name] == ["c1", "f"]
    assert "".join(call.function.arguments or "" for call in calls) == "{}"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert upstream.requests[0].headers["Authorization"] == "Bearer k"
    assert upstream.requests[1].body == HELLO


@pytest.mark.gen_test
async def test_testing_answers_by_request(upstream):
    """A reply may wait for its request, and a function may answer every one."""
    upstream.reply("for b", when=lambda body: body["model"] == "b")
    upstream.reply("for anyone")
    upstream.default = Reply(deltas=["default"])
    texts = [
        text_of(await read(upstream, HELLO | {"model": model}))
        for model in ("a", "b", "c")
    ]
    assert texts == ["for anyone", "for b", "default"]
    upstream.reply("queued")
    upstream.on_request = lambda body: (
        Reply(deltas=[body["model"]]) if body["model"] == "x" else None
    )
    assert text_of(await read(upstream, HELLO | {"model": "x"})) == "x"
    assert text_of(await read(upstream)) == "queued"


@pytest.mark.gen_test
async def test_testing_sends_each_piece_at_once(upstream):
    """A piece goes out when it is due, not when the answer is complete."""
    upstream.reply(deltas=["a", "b"], gap_s=0.2)
    loop = asyncio.get_running_loop()
    arrived = {}
    async with (
        aiohttp.ClientSession() as client,
        client.post(upstream.url, json=HELLO) as response,
    ):
        async for event in events(response):
            arrived[text_of([event])] = loop.time()
    assert arrived["b"] - arrived["a"] > 0.15


@pytest.mark.gen_test
@pytest.mark.parametrize("after", [None, [], ["some ", "text"]])
async def test_testing_hangs_until_released(upstream, after):
    """A hanging answer is silent where it was told to, and goes on when released."""
    upstream.hang(after=after, then=[" more"])
    reading = asyncio.create_task(read(upstream))
    request = await upstream.arrival()
    await asyncio.sleep(0.05)
    assert not reading.done() and not request.over.is_set()
    upstream.release()
    assert text_of(await reading) == "".join(after or []) + " more"
    assert not request.closed.is_set()


@pytest.mark.gen_test
@pytest.mark.parametrize("after", [None, [], ["some text"]])
@pytest.mark.parametrize("stream", [True, False])
async def test_testing_notices_a_close_while_silent(upstream, after, stream):
    """A client that leaves a silent answer is noticed at once."""
    upstream.hang(after=after)
    reading = asyncio.create_task(read(upstream, HELLO | {"stream": stream}))
    request = await upstream.arrival()
    await asyncio.sleep(0.05)
    reading.cancel()
    async with asyncio.timeout(1):
        await request.closed.wait()
        await request.over.wait()
    assert request.closed_at >= request.arrived_at


@pytest.mark.gen_test
async def test_testing_notices_a_close_between_pieces(upstream):
    """A client that leaves between two pieces is noticed before the next is due."""
    upstream.reply(deltas=["a", "b"], gap_s=20)
    reading = asyncio.create_task(read(upstream))
    request = await upstream.arrival()
    await asyncio.sleep(0.05)
    reading.cancel()
    async with asyncio.timeout(1):
        await request.closed.wait()


@pytest.mark.gen_test
async def test_testing_counts_connections(upstream):
    """Requests say which connection brought them."""
    async with aiohttp.ClientSession() as client:
        for _ in range(2):
            async with client.post(upstream.url, json=WHOLE) as response:
                await response.read()
    await read(upstream)
    assert [request.connection for request in upstream.requests] == [1, 1, 2]
    assert not any(request.closed.is_set() for request in upstream.requests)


@pytest.mark.gen_test
async def test_testing_cuts_an_answer(upstream):
    """A cut answer ends the connection in the middle of its body."""
    upstream.reply(deltas=["half"], cut=True)
    with pytest.raises(aiohttp.ClientPayloadError):
        await read(upstream)
    assert not upstream.requests[0].closed.is_set()


@pytest.mark.gen_test
async def test_testing_writes_raw_bytes(upstream):
    """Raw bytes reach the client as they stand."""
    upstream.raw(b"HTTP/1.1 299 Odd\r\nContent-Length: 4\r\n\r\n", b"\xff\x00ab")
    async with (
        aiohttp.ClientSession() as client,
        client.post(upstream.url, json=WHOLE) as response,
    ):
        assert (response.status, await response.read()) == (299, b"\xff\x00ab")


@pytest.mark.gen_test
async def test_testing_stops_in_any_state():
    """Stopping ends answers that hang, pause or hold the connection open."""
    upstream = ScriptedUpstream()
    async with upstream:
        upstream.hang()
        upstream.hang(after=["a"])
        upstream.reply(deltas=["a", "b"], gap_s=30)
        upstream.raw(b"HTTP/1.1 200 OK\r\n\r\n", keep_open=True)
        bodies = [HELLO] * 4
        reading = [asyncio.create_task(read(upstream, body)) for body in bodies]
        await upstream.arrival(4)
    done = await asyncio.gather(*reading, return_exceptions=True)
    assert all(isinstance(result, Exception) for result in done)
    assert all(request.over.is_set() for request in upstream.requests)
