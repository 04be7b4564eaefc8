"""Clients that read slowly, late or not at all: what they cost, and what they get."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from edwin.handlers.chat import ChatCompletionsHandler
from edwin.runs.run import MAX_EVENTS
from edwin.testing.gateway import TOKEN
from tests.conftest import Client, chat, raw_chat
from tests.faults import chunk, framed
from tests.process import GatewayProcess

QUICK = {"gateway": {"http": {"stallSeconds": 0.5}}}
PIECE = "x" * 100_000
STALLED_S = 0.5


@contextmanager
def connected(served, *, buffer_bytes: int = 4096) -> Iterator[socket.socket]:
    """Connect a client that the kernel takes only so much in for."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        client.connect(("127.0.0.1", int(served.url.rsplit(":", 1)[1])))
        client.setblocking(False)
        yield client


async def rest(client: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    loop, received = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(30):
        while piece := await loop.sock_recv(client, 1_000_000):
            received += piece
    return bytes(received)


def raw_events(run_id: str, version: str = "1.1") -> bytes:
    return (
        f"GET /v1/runs/{run_id}/events HTTP/{version}\r\nHost: localhost\r\n"
        f"Authorization: Bearer {TOKEN}\r\n\r\n"
    ).encode()


async def gone(served) -> None:
    """Wait until no answer is open and no run is left."""
    async with asyncio.timeout(20):
        while served.gateway.answers or served.gateway.engine.live():
            await asyncio.sleep(0.02)


@pytest.mark.gen_test
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}], ids=["stateless", "session"])
async def test_slow_clients_stalled_stream(make_gateway, fields):
    """A stream whose client takes nothing for ``stallSeconds`` is cut, its run ends."""
    served = await make_gateway(QUICK)
    served.upstream.reply(deltas=[PIECE] * 150, gap_s=0.02)
    with connected(served) as client:
        client.send(raw_chat(stream=True, **fields))
        request = await served.upstream.arrival()
        began = time.monotonic()
        async with asyncio.timeout(15):
            await request.closed.wait()
        assert time.monotonic() - began >= STALLED_S
        await gone(served)
        received = await rest(client)
    assert received.startswith(b"HTTP/1.1 200 OK") and b"[DONE]" not in received
    (record,) = await ledger(served)
    assert (record.state, record.error_code) == ("cancelled", "run_cancelled")


async def ledger(served) -> list:
    """Return the runs there were, when all of them are written."""
    async with asyncio.timeout(5):
        while not (runs := await served.gateway.store.runs()):
            await asyncio.sleep(0.05)
    return runs


@pytest.mark.gen_test
@pytest.mark.parametrize("fields", [{}, {"user": "ann"}], ids=["stateless", "session"])
@pytest.mark.parametrize("size", [2, 12], ids=["2MB", "12MB"])
async def test_slow_clients_stalled_whole_answer(make_gateway, fields, size):
    """Who takes nothing of a whole answer loses its connection, and nothing is left.

    What the kernel takes in for the client is not waited for.
    """
    http = QUICK["gateway"]["http"] | {"idleSeconds": 0.5}
    served = await make_gateway({"gateway": {"http": http}})
    served.upstream.reply(deltas=[PIECE] * 10 * size)
    with connected(served) as client:
        client.send(raw_chat(**fields))
        await served.upstream.arrival()
        await gone(served)
        # An answer of that size never went out whole.
        if size == 12:
            assert (await rest(client)).count(b"x") < size * 1_000_000
        else:
            assert (await rest(client)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.gen_test
@pytest.mark.parametrize("detached", [False, True], ids=["kept-by-reader", "detached"])
async def test_slow_clients_stalled_events(make_gateway, connect, detached):
    """A reader of a run's events that takes nothing is cut; it holds its run no more.

    A detached run goes on without it.
    """
    served = await make_gateway(QUICK)
    client, upstream = Client(served), served.upstream
    upstream.reply(deltas=[PIECE] * (100 if detached else 150), gap_s=0.02)
    if detached:
        begun = await client.request("/v1/runs", chat("go"))
        run_id = json.loads(begun.body)["id"]
    else:
        first = await connect(served, raw_chat("go", stream=True))
        head = await first.until(PIECE.encode())
        run_id = head.partition(b"run_")[2][:32].decode()
        run_id = f"run_{run_id}"
    with connected(served) as reader:
        reader.send(raw_events(run_id))
        live = served.gateway.engine.find(run_id)
        async with asyncio.timeout(10):
            while not any(one.route.endswith("events") for one in answers(served)):
                await asyncio.sleep(0.01)
        if not detached:
            await first.close()
        async with asyncio.timeout(10):
            while answers(served):
                await asyncio.sleep(0.02)
        received = await rest(reader)
    assert b"text.delta" in received and b"run.finished" not in received
    await gone(served)
    assert live.state == ("finished" if detached else "cancelled")
    async with asyncio.timeout(5):
        await upstream.requests[0].over.wait()
    assert upstream.requests[0].closed.is_set() is not detached


def answers(served) -> list:
    return list(served.gateway.answers)


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_slow_clients_that_read(make_gateway, stream):
    """A client that reads slowly, but reads, gets all of its answer."""
    served = await make_gateway(QUICK)
    served.upstream.reply(deltas=[PIECE] * 50)
    received = bytearray()
    with connected(served, buffer_bytes=65536) as client:
        client.send(raw_chat(stream=stream, headers="Connection: close\r\n"))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(40):
            while piece := await loop.sock_recv(client, 50_000):
                received += piece
                await asyncio.sleep(0.025)
    assert received.count(b"x") >= 50 * len(PIECE)
    assert (b"[DONE]" in received) is stream
    await gone(served)


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "stalls"])
async def test_slow_clients_leave_nothing(make_gateway, stream, leaves):
    """What a client has asked for that left, or was cut, is freed at once."""
    served = await make_gateway(QUICK)
    served.upstream.reply(deltas=[PIECE] * 120)
    gc.collect()
    gc.disable()
    try:
        with connected(served) as client:
            client.send(raw_chat(stream=stream))
            async with asyncio.timeout(10):
                while not served.gateway.engine.live():
                    await asyncio.sleep(0.001)
                (run,) = map(weakref.ref, served.gateway.engine.live())
                while not served.gateway.answers:
                    await asyncio.sleep(0.001)
            if leaves:
                client.close()
            await gone(served)
        async with asyncio.timeout(5):
            while run() is not None:
                await asyncio.sleep(0.05)
    finally:
        gc.enable()


@pytest.mark.gen_test
async def test_slow_clients_leave_no_body(served, connect):
    """What had come of a body is freed at once when its client leaves."""
    gc.collect()
    gc.disable()
    try:
        whole = raw_chat("x" * 1_000_000)
        answer = await connect(served, whole[:-1])
        while not any(map(holds_much, handlers())):
            await asyncio.sleep(0.01)
        await answer.close()
        async with asyncio.timeout(5):
            while any(map(holds_much, handlers())):
                await asyncio.sleep(0.05)
    finally:
        gc.enable()


def handlers() -> list[ChatCompletionsHandler]:
    """Return the handlers that are in memory, used or not."""
    return [one for one in gc.get_objects() if type(one) is ChatCompletionsHandler]


def holds_much(handler: ChatCompletionsHandler) -> bool:
    """Return whether most of a large body is there."""
    return sum(map(len, handler._body)) > 900_000


def long_answer(upstream, text: str, deltas: int) -> None:
    """Let the provider send *deltas* times *text*, as fast as it can."""
    event = framed(chunk(text))
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    end = framed(chunk(None, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    at_once = 1_000_000 // len(event)
    whole, left = divmod(deltas, at_once)
    upstream.raw(head, *[event * at_once] * whole, event * left, end)


@pytest.mark.gen_test
async def test_slow_clients_behind_the_buffer_of_a_stream(make_gateway):
    """A stream whose client is more than the buffer behind ends with an error event."""
    served = await make_gateway()
    long_answer(served.upstream, "x" * 50, 3 * MAX_EVENTS)
    with connected(served) as client:
        client.send(raw_chat(stream=True, user="ann"))
        await served.upstream.arrival()
        (live,) = served.gateway.engine.live()
        async with asyncio.timeout(30):
            while live.first <= MAX_EVENTS:
                await asyncio.sleep(0.05)
        received = await rest(client)
    event = orjson.loads(received.rsplit(b"data: ", 1)[1].split(b"\n\n")[0])
    assert event["error"]["code"] == "reader_too_slow"
    assert b"[DONE]" not in received and not received.endswith(b"0\r\n\r\n")
    await gone(served)


@pytest.mark.gen_test
async def test_slow_clients_behind_the_buffer_of_events(make_gateway):
    """A reader of a run's events is told which are gone, and gets the whole answer."""
    served = await make_gateway()
    client = Client(served)
    count = 3 * MAX_EVENTS
    long_answer(served.upstream, "x" * 50, count)
    with connected(served) as reader:
        begun = await client.request("/v1/runs", chat("go"))
        run_id = json.loads(begun.body)["id"]
        # Of HTTP/1.0, which has no chunks to be put together.
        reader.send(raw_events(run_id, "1.0"))
        live = served.gateway.engine.find(run_id)
        async with asyncio.timeout(40):
            await live.wait()
        received = await rest(reader)
    documents = [
        orjson.loads(line.removeprefix(b"data: "))
        for line in received.split(b"\n")
        if line.startswith(b"data: ")
    ]
    (gap,) = [d for d in documents if d["event"] == "events.gap"]
    place = documents.index(gap)
    assert gap["payload"] == {
        "after": documents[place - 1]["seq"] if place else 0,
        "upto": documents[place + 1]["seq"] - 1,
    }
    numbers = [d["seq"] for d in documents if d is not gap]
    missing = gap["payload"]["upto"] - gap["payload"]["after"]
    assert numbers == sorted(set(numbers)) and numbers[-1] == len(numbers) + missing
    assert missing > 0
    assert documents[-1]["event"] == "run.finished"
    assert documents[-1]["payload"]["message"]["content"] == "x" * 50 * count
    await gone(served)


def rss(process: GatewayProcess) -> int:
    """Return the resident memory of *process*, in bytes."""
    status = Path(f"/proc/{process.process.pid}/status").read_text("ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_slow_clients_cost_bounded_memory(upstream, tmp_path, stream):
    """A provider that sends 200 MB to a client that does not read is cut off."""
    config = {
        "gateway": {"http": {"stallSeconds": 2}},
        "agents": {"defaults": {"model": "up/scripted", "instructions": ""}},
        "models": {
            "providers": {"up": {"api": "openai-completions", "baseUrl": upstream.url}}
        },
    }
    loop = asyncio.get_running_loop()
    process = await loop.run_in_executor(None, GatewayProcess, tmp_path, config)
    with process:
        client = Client(process)
        assert (await client.chat(stream=stream)).status == 200
        before = most = rss(process)
        long_answer(upstream, PIECE, 2_000)
        with connected(process) as reader:
            reader.send(raw_chat(stream=stream))
            request = await upstream.arrival(2)
            async with asyncio.timeout(30):
                while not request.over.is_set() or await open_answers(client):
                    most = max(most, rss(process))
                    await asyncio.sleep(0.02)
            assert most - before < 100_000_000
            assert (await client.chat(stream=stream)).status == 200


async def open_answers(client: Client) -> bool:
    """Return whether an answer is still being given."""
    metrics = await client.request("/metrics")
    return b"\nedwin_answers_open 0.0\n" not in metrics.body
