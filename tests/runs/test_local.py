"""Bounds of the engine: what waits, for how long, and what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.conftest import Client


async def busy(make_gateway, *, runs: dict, **fields) -> tuple[Client, asyncio.Future]:
    """Return a client of a gateway in which one run is under way, silent."""
    served = await make_gateway({"gateway": {"runs": runs}})
    client = Client(served)
    served.upstream.hang(then=["done"])
    call = asyncio.ensure_future(client.chat("first", **fields))
    await served.upstream.arrival()
    return client, call


@pytest.mark.gen_test
async def test_local_session_queue_is_bounded(make_gateway):
    """One more run than a session's queue holds is 429, and leaves nothing behind."""
    client, first = await busy(
        make_gateway, runs={"maxQueuedPerSession": 1}, user="ann"
    )
    second = asyncio.ensure_future(client.chat("second", user="ann"))
    engine = client.served.gateway.engine
    while not engine.waiting:
        await asyncio.sleep(0.01)
    refused = await client.chat("third", user="ann")
    assert refused.status == 429
    assert refused.error["code"] == "session_queue_full"
    assert int(refused.headers["Retry-After"]) >= 1
    # Other sessions are not concerned.
    assert (await client.chat("hello", user="bob")).status == 200
    client.served.upstream.release()
    assert ((await first).text, (await second).text) == ("done", "second")
    assert engine.waiting == engine.running == 0


@pytest.mark.gen_test
async def test_local_queue_is_bounded(make_gateway):
    """One more run than the gateway's queue holds is 503."""
    client, first = await busy(make_gateway, runs={"maxConcurrent": 1, "maxQueued": 1})
    second = asyncio.ensure_future(client.chat("second"))
    while not client.served.gateway.engine.waiting:
        await asyncio.sleep(0.01)
    refused = await client.chat("third")
    assert (refused.status, refused.error["code"]) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    client.served.upstream.release()
    assert ((await first).text, (await second).text) == ("done", "second")


@pytest.mark.gen_test
async def test_local_no_queue_is_no_obstacle(make_gateway):
    """With a queue of nothing, what can run at once still runs."""
    served = await make_gateway(
        {"gateway": {"runs": {"maxQueued": 0, "maxQueuedPerSession": 0}}}
    )
    client = Client(served)
    assert (await client.chat("hello", user="ann")).status == 200
    assert (await client.chat("hello")).status == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_local_deadline_of_a_run(make_gateway, stream):
    """A run past its deadline is 504, its provider is left, and it is not repeated."""
    client, first = await busy(
        make_gateway, runs={"timeoutSeconds": 0.2}, user="ann", stream=stream
    )
    answer = await first
    assert (answer.status, answer.error["code"]) == (504, "run_timeout")
    assert answer.headers["x-should-retry"] == "false"
    async with asyncio.timeout(1):
        await client.served.upstream.requests[0].closed.wait()
    assert (await client.chat("next", user="ann")).text == "next"


@pytest.mark.gen_test
async def test_local_deadline_of_a_waiting_run(make_gateway):
    """A run that waited past its deadline is 503, and no provider was called."""
    client, first = await busy(make_gateway, runs={"maxConcurrent": 1})
    engine = client.served.gateway.engine
    engine._limits = replace(engine._limits, timeout_seconds=0.1)
    answer = await client.chat("second")
    assert (answer.status, answer.error["code"]) == (503, "queue_timeout")
    assert int(answer.headers["Retry-After"]) >= 1
    assert len(client.served.upstream.requests) == 1
    client.served.upstream.release()
    assert (await first).text == "done"
    assert engine.waiting == engine.running == 0
