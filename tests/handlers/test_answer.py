"""How an answer goes out: heads, chunks, signs of life, errors, the client gone."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from edwin.validate import Schemas
from tests.conftest import Client, raw_chat

SCHEMAS = Schemas()
STREAM = {"stream": True}
QUICK_HEAD = {"gateway": {"http": {"headDelayMs": 50}}}


def check_stream(answer, *, usage: bool = False) -> None:
    """Hold a whole stream against the official shape."""
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    events = answer.events
    assert events[-1] == "[DONE]"
    assert answer.body.endswith("data: [DONE]\n\n")
    chunks = events[:-1]
    for chunk in chunks:
        SCHEMAS.check("openai/chat_completion_chunk", chunk)
    assert len({(c["id"], c["created"], c["model"]) for c in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [choice["delta"] for c in chunks for choice in c["choices"]]
    assert sum("role" in delta for delta in deltas) == 1
    reasons = [choice["finish_reason"] for c in chunks for choice in c["choices"]]
    assert reasons[-1] is not None and set(reasons[:-1]) == {None}
    if usage:
        assert chunks[-1]["choices"] == []
        assert all(c["usage"] is None for c in chunks[:-1])
    else:
        assert not any("usage" in c for c in chunks)


@pytest.mark.gen_test
async def test_answer_whole(client):
    """A whole answer has the official shape, and names its run, agent and session."""
    client.served.upstream.reply("Hello you")
    answer = await client.chat()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    SCHEMAS.check("openai/chat_completion", answer.json)
    assert answer.text == "Hello you"
    assert answer.json["model"] == "edwin"
    assert answer.headers["x-edwin-agent-id"] == "main"
    assert answer.headers["x-edwin-run-id"].startswith("run_")
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-edwin-session-key"].startswith("agent:main:openai:")


@pytest.mark.gen_test
@pytest.mark.parametrize("usage", [True, False])
async def test_answer_stream(client, usage):
    """A stream has the official shape, with usage only where it was asked for."""
    client.served.upstream.reply("Hello dear reader")
    options = {"stream_options": {"include_usage": True}} if usage else {}
    answer = await client.chat(**STREAM, **options)
    check_stream(answer, usage=usage)
    assert answer.text == "Hello dear reader"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in answer.headers


@pytest.mark.gen_test
async def test_answer_tool_calls(client):
    """Tool calls come back whole and streamed, arguments in pieces."""
    calls = [
        {"id": "c1", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "c2", "function": {"name": "g", "arguments": "{}"}},
    ]
    tools = [{"type": "function", "function": {"name": n}} for n in "fg"]
    client.served.upstream.reply(tool_calls=calls)
    whole = await client.chat(tools=tools)
    SCHEMAS.check("openai/chat_completion", whole.json)
    choice = whole.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [{**c, "type": "function"} for c in calls]
    assert client.served.upstream.requests[0].body["tools"] == tools

    client.served.upstream.reply(tool_calls=calls)
    streamed = await client.chat(tools=tools, **STREAM)
    check_stream(streamed)
    pieces = [
        piece
        for event in streamed.events[:-1]
        for choice in event["choices"]
        for piece in choice["delta"].get("tool_calls", ())
    ]
    for index, call in enumerate(calls):
        mine = [piece for piece in pieces if piece["index"] == index]
        assert (mine[0]["id"], mine[0]["type"]) == (call["id"], "function")
        assert mine[0]["function"]["name"] == call["function"]["name"]
        text = "".join(piece["function"]["arguments"] for piece in mine)
        assert text == call["function"]["arguments"]


@pytest.mark.gen_test
async def test_answer_estimated_usage(client):
    """Where a provider counts no tokens, usage is an estimate and says so."""
    client.served.upstream.reply("abcdefgh", usage=None)
    answer = await client.chat("12345")
    assert answer.json["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "estimated": True,
    }
    SCHEMAS.check("openai/chat_completion", answer.json)


@pytest.mark.gen_test
async def test_answer_logprobs(client):
    """Log probabilities come back where they were asked for."""
    marks = [
        {"token": t, "logprob": -0.5, "bytes": None, "top_logprobs": []} for t in "ab"
    ]
    logprobs = [{"content": [mark], "refusal": None} for mark in marks]
    client.served.upstream.reply(deltas=["a", "b"], logprobs=logprobs)
    whole = await client.chat(logprobs=True)
    SCHEMAS.check("openai/chat_completion", whole.json)
    assert whole.json["choices"][0]["logprobs"]["content"] == marks
    client.served.upstream.reply(deltas=["a", "b"], logprobs=logprobs)
    check_stream(await client.chat(logprobs=True, **STREAM))


@pytest.mark.gen_test
async def test_answer_lines_are_lines_for_every_reader(client):
    """No character of an answer ends a line of the stream."""
    text = "a\u2028b\u2029c\u0085d\ne\r\nf"
    client.served.upstream.reply(deltas=[text])
    answer = await client.chat(**STREAM)
    assert answer.text == text
    assert all(line.startswith("data: ") for line in answer.body.splitlines() if line)


@pytest.mark.gen_test
async def test_answer_head_role_and_first_delta_are_one_write(client, connect):
    """The head waits for the first delta, and they go out together."""
    client.served.upstream.hang(after=["first"], then=["second"])
    answer = await connect(client.served, raw_chat(stream=True))
    received = await answer.until(b"200 OK")
    assert b'"role":"assistant"' in received
    assert b'"content":"first"' in received
    client.served.upstream.release()
    await answer.until(b"[DONE]")


@pytest.mark.gen_test
async def test_answer_deltas_arrive_as_they_are_made(client, connect):
    """Every delta is on its way before the next one is made."""
    upstream = client.served.upstream
    upstream.reply(deltas=[f"d{i}" for i in range(5)], gap_s=0.05)
    answer = await connect(client.served, raw_chat(stream=True))
    for i in range(5):
        received = await answer.until(f'"d{i}"'.encode())
        assert f'"d{i + 1}"'.encode() not in received
    await answer.until(b"[DONE]")


@pytest.mark.gen_test
async def test_answer_head_does_not_wait_for_ever(make_gateway, connect):
    """After headDelayMs the head goes out; then a comment says that all is well."""
    http = {"headDelayMs": 50, "keepAliveSeconds": 0.1}
    served = await make_gateway({"gateway": {"http": http}})
    served.upstream.hang(then=["late"])
    answer = await connect(served, raw_chat(stream=True))
    assert b'"role":"assistant"' in await answer.until(b'"role"')
    received = await answer.until(b": ping\n\n")
    assert b"data: : ping" not in received
    served.upstream.release()
    assert b'"late"' in await answer.until(b"[DONE]")


@pytest.mark.gen_test
async def test_answer_error_before_the_head_is_plain(client):
    """Until the head is out, a stream's error is an answer with its status."""
    client.served.upstream.fail(503)
    answer = await client.chat(**STREAM)
    assert (answer.status, answer.error["code"]) == (502, "provider_unavailable")
    assert answer.headers["Content-Type"] == "application/json"
    SCHEMAS.check("openai/error", answer.json)
    assert answer.headers["x-edwin-run-id"].startswith("run_")


@pytest.mark.gen_test
async def test_answer_error_after_the_head_cuts(client, connect):
    """After the head, an error is an event, and the stream has no clean end."""
    client.served.upstream.reply(deltas=["half"], cut=True)
    answer = await connect(client.served, raw_chat(stream=True))
    received = await answer.to_end()
    await answer.close()
    assert b'"half"' in received
    assert b"[DONE]" not in received and b'"finish_reason":"' not in received
    assert not received.endswith(b"0\r\n\r\n")
    event = received.rsplit(b"data: ", 1)[1].split(b"\n\n")[0]
    document = orjson.loads(event)
    SCHEMAS.check("openai/error", document)
    assert document["error"]["code"] == "provider_stream_error"


@pytest.mark.gen_test
async def test_answer_http_1_0_ends_with_its_connection(client, connect):
    """A client of HTTP/1.0 gets the whole stream, and then the connection's end."""
    client.served.upstream.reply("one two")
    request = raw_chat(version="1.0", headers="Connection: keep-alive\r\n", stream=True)
    answer = await connect(client.served, request)
    received = await answer.to_end()
    await answer.close()
    assert received.endswith(b"data: [DONE]\n\n")


@pytest.mark.gen_test
async def test_answer_keeps_the_connection(client, connect):
    """After an answer of either kind, the connection takes the next request."""
    answer = await connect(client.served, raw_chat(stream=True))
    await answer.until(b"0\r\n\r\n")
    for _ in range(2):
        answer.received = b""
        answer.writer.write(raw_chat())
        assert b"200 OK" in await answer.until(b'"usage"')


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}])
async def test_answer_client_leaves_a_silent_provider(client, stream, fields, connect):
    """When the client leaves, the provider's connection is closed at once."""
    upstream = client.served.upstream
    upstream.hang()
    answer = await connect(client.served, raw_chat(stream=stream, **fields))
    request = await upstream.arrival()
    assert not request.closed.is_set()
    await answer.close()
    async with asyncio.timeout(1):
        await request.closed.wait()
    assert (await client.chat(**fields)).status == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_answer_client_leaves_the_queue(client, stream, connect):
    """A waiting run whose client leaves never reaches the provider."""
    upstream = client.served.upstream
    upstream.hang()
    first = asyncio.ensure_future(client.chat("one", user="ann"))
    await upstream.arrival()
    waiting = await connect(client.served, raw_chat(user="ann", stream=stream))
    engine = client.served.gateway.engine
    while not engine.waiting:
        await asyncio.sleep(0.01)
    await waiting.close()
    while engine.waiting:
        await asyncio.sleep(0.01)
    upstream.release()
    assert (await first).status == 200
    await client.chat("three", user="ann")
    said = [r.body["messages"][-1]["content"] for r in upstream.requests]
    assert said == ["one", "three"]


@pytest.mark.gen_test
async def test_answer_client_leaves_the_queue_after_the_head(make_gateway, connect):
    """What a head was sent for is kept, though its client left before its turn."""
    served = await make_gateway(QUICK_HEAD)
    client, upstream = Client(served), served.upstream
    upstream.hang(then=["ok"])
    first = asyncio.ensure_future(client.chat("one", user="ann"))
    await upstream.arrival()
    waiting = await connect(
        served,
        raw_chat(
            messages=[{"role": "user", "content": "two"}], user="ann", stream=True
        ),
    )
    await waiting.until(b'"role"')
    await waiting.close()
    await asyncio.sleep(0.05)
    upstream.release()
    await first
    await client.chat("three", user="ann")
    context = upstream.requests[-1].body["messages"]
    assert [m["content"] for m in context] == ["one", "ok", "two", "three"]


@pytest.mark.gen_test
async def test_answer_queued_stream_gets_its_head_and_its_turn(make_gateway, connect):
    """A stream that waits for its session has its head, and its answer in turn."""
    served = await make_gateway(QUICK_HEAD)
    client, upstream = Client(served), served.upstream
    upstream.hang(then=["one"])
    first = asyncio.ensure_future(client.chat("1", user="ann"))
    await upstream.arrival()
    second = await connect(served, raw_chat(user="ann", stream=True))
    await second.until(b'"role"')
    assert len(upstream.requests) == 1
    upstream.release()
    assert (await first).text == "one"
    await second.until(b"[DONE]")
    await second.close()
