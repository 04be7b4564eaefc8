"""A run's start and end when the store, the client or the provider will not wait."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from edwin.config import ProviderConfig
from edwin.types import Delta, ModelRequest, TextDelta, TurnFinished
from tests.conftest import Client, raw_chat


class Unfinished:
    """A provider of a user's own that never says that it has finished."""

    context_tokens = 1000
    context_is_known = False
    retries = 0
    retry_seconds = 0.0

    def __init__(self, config: ProviderConfig) -> None:
        self.name = config.name

    async def start(self) -> None:
        """Have nothing to start."""

    async def stop(self) -> None:
        """Have nothing to stop."""

    async def stream(
        self, request: ModelRequest
    ) -> AsyncGenerator[Delta | TurnFinished, None]:
        """Yield a piece of an answer, and no end; fail when told to."""
        yield TextDelta("half")
        if request.messages[-1]["content"] == "fail":
            raise ZeroDivisionError


@contextmanager
def locked(served):
    """Keep the store from being written."""
    path = served.gateway._folder.path / "edwin.db"
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
    database.close()


def context(served) -> list[str]:
    return [m["content"] for m in served.upstream.requests[-1].body["messages"]]


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_carry_nothing_goes_out_before_it_is_durable(client, connect, stream):
    """No byte of an answer is sent before the message it answers is on disk."""
    served = client.served
    served.upstream.reply("quick")
    with locked(served):
        answer = await connect(served, raw_chat(user="ann", stream=stream))
        await served.upstream.arrival()
        await served.upstream.requests[0].over.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await answer.until(b"HTTP")
        assert answer.received == b""
    assert b"200 OK" in await answer.until(b"quick")


@pytest.mark.gen_test
async def test_carry_client_leaves_while_the_store_is_busy(client, connect):
    """An answer that came before its client left is kept, in its place."""
    served = client.served
    served.upstream.reply("quick")
    with locked(served):
        answer = await connect(served, raw_chat("one", user="ann"))
        await served.upstream.arrival()
        await served.upstream.requests[0].over.wait()
        await asyncio.sleep(0.1)
        await answer.close()
        await asyncio.sleep(0.1)
    while served.gateway.engine.running:
        await asyncio.sleep(0.01)
    await client.chat("two", user="ann")
    assert context(served) == ["one", "quick", "two"]
    served.gateway.registry._live.clear()
    await client.chat("three", user="ann")
    assert context(served) == ["one", "quick", "two", "two", "three"]


@pytest.mark.gen_test
async def test_carry_end_that_cannot_be_stored(client):
    """An answer that cannot be kept is an error, and no part of the conversation."""
    served = client.served
    served.upstream.reply("ok")
    await client.chat("one", user="ann")
    served.upstream.hang(after=["lost"])
    call = asyncio.ensure_future(client.chat("two", user="ann"))
    await served.upstream.arrival(2)
    # What was asked is durable; what is answered will not be.
    while served.gateway.engine.running:
        runs = await served.gateway.store.runs()
        if any(run.state == "running" for run in runs):
            break
    with locked(served):
        served.upstream.release()
        answer = await call
    assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
    while not served.gateway.store.writable:
        await asyncio.sleep(0.01)
    await client.chat("three", user="ann")
    assert context(served) == ["one", "ok", "three"]
    served.gateway.registry._live.clear()
    await client.chat("four", user="ann")
    assert context(served) == ["one", "ok", "three", "three", "four"]


@pytest.mark.gen_test
async def test_carry_queue_timeout_leaves_no_message(make_gateway, connect):
    """What waited in vain is kept, but is not part of the conversation."""
    served = await make_gateway({"gateway": {"http": {"headDelayMs": 20}}})
    client, upstream = Client(served), served.upstream
    upstream.hang(then=["ok"])
    first = asyncio.ensure_future(client.chat("one", user="ann"))
    await upstream.arrival()
    engine = served.gateway.engine
    limits = engine._limits
    engine._limits = replace(limits, timeout_seconds=0.2)
    second = await connect(served, raw_chat("two", user="ann", stream=True))
    assert b"queue_timeout" in await second.to_end()
    engine._limits = limits
    upstream.release()
    assert (await first).text == "ok"
    for text in ("three", "four"):
        await client.chat(text, user="ann")
        assert "two" not in context(served)
        served.gateway.registry._live.clear()
    assert context(served) == ["one", "ok", "three", "three", "four"]


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "code"),
    [("hello", "provider_stream_error"), ("fail", "internal_error")],
)
async def test_carry_survives_a_provider_of_a_users_own(
    make_gateway, error_log, stream, text, code
):
    """A provider that breaks its promises fails its run, and nothing else."""
    providers = {"own": {"api": "tests.runs.test_carry:Unfinished"}}
    agents = {"list": [{"id": "own", "model": "own/x"}]}
    served = await make_gateway({"models": {"providers": providers}, "agents": agents})
    client = Client(served)
    answer = await client.chat(text, user="ann", model="edwin:own")
    assert (answer.status, answer.error["code"]) == (
        502 if code.startswith("provider") else 500,
        code,
    )
    assert (await client.chat("hi", user="ann")).status == 200
    assert [record.getMessage() for record in error_log] == (
        ["run failed"] if code == "internal_error" else []
    )
    error_log.clear()
    assert not served.gateway.engine.running


@pytest.mark.gen_test
@pytest.mark.parametrize("moment", range(12))
async def test_carry_cancelled_at_any_moment(client, moment):
    """Wherever a cancel falls, the run ends once and its session goes on."""
    from edwin import dispatch
    from edwin.types import OWNER, ChatRequest

    served = client.served
    request = ChatRequest(
        messages=[{"role": "user", "content": "go"}], model="edwin", user="ann"
    )
    run = await dispatch.submit(served.gateway, request, OWNER)
    with run.events() as reader:
        for _ in range(moment):
            await asyncio.sleep(0)
        run.cancel()
        ends = [event async for event in reader if run.ended]
    assert run.end is not None and ends[-1] is run.end
    while served.gateway.engine.running:
        await asyncio.sleep(0.01)
    answer = await client.chat("next", user="ann")
    assert answer.status == 200
    assert context(served)[-1] == "next"
    assert served.gateway.engine.waiting == 0
