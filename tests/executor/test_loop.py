"""Retries and fallbacks: only before the first delta, and never for nothing."""

from __future__ import annotations

import asyncio

import pytest

from edwin.testing import ScriptedUpstream
from tests.conftest import Client


async def served_with(make_gateway, *, retries: int = 2, **defaults):
    """Return a client of a gateway whose provider may be asked again, at once."""
    upstream = ScriptedUpstream()
    await upstream.start()
    second = {"api": "openai-completions", "baseUrl": upstream.url, "retries": 0}
    first = {"retries": retries, "retrySeconds": 0.01}
    providers = {"upstream": first, "second": second}
    config = {"models": {"providers": providers}, "agents": {"defaults": defaults}}
    served = await make_gateway(config, upstream=upstream)
    return Client(served), upstream


@pytest.fixture
def made(io_loop, make_gateway):
    """Return ``await made(...)``: see :func:`served_with`; stops what it started."""
    upstreams: list[ScriptedUpstream] = []

    async def make(**options):
        client, upstream = await served_with(make_gateway, **options)
        upstreams.append(upstream)
        return client, upstream

    yield make
    for upstream in upstreams:
        io_loop.run_sync(upstream.stop)


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("stream", [False, True])
async def test_loop_repeats_what_may_succeed(made, status, stream):
    """A call that failed before its first delta is repeated, and nobody sees it."""
    client, upstream = await made()
    upstream.fail(status)
    upstream.fail(status)
    upstream.reply("third time")
    answer = await client.chat("go", user="ann", stream=stream)
    assert (answer.status, answer.text) == (200, "third time")
    assert len(upstream.requests) == 3


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_loop_does_not_repeat_refusals(made, status):
    """A refusal is not repeated, and the client is told not to repeat it either."""
    client, upstream = await made()
    upstream.fail(status)
    answer = await client.chat()
    assert (answer.status, answer.error["code"]) == (502, "provider_error")
    assert answer.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


@pytest.mark.gen_test
async def test_loop_gives_up(made):
    """After the last repetition, the client gets the provider's failure."""
    client, upstream = await made(retries=1)
    for _ in range(3):
        upstream.fail(503)
    answer = await client.chat()
    assert (answer.status, answer.error["code"]) == (502, "provider_unavailable")
    assert len(upstream.requests) == 2


@pytest.mark.gen_test
async def test_loop_obeys_retry_after(made):
    """Retry-After is waited for, and passed on when it is too long to wait."""
    client, upstream = await made()
    upstream.fail(429, headers={"Retry-After": "1"})
    upstream.reply("later")
    assert (await client.chat()).text == "later"
    first, second = upstream.requests
    assert second.arrived_at - first.arrived_at >= 1
    upstream.fail(429, headers={"Retry-After": "31"})
    answer = await client.chat()
    assert (answer.status, answer.error["code"]) == (429, "provider_rate_limited")
    assert answer.headers["Retry-After"] == "31"
    assert len(upstream.requests) == 3


@pytest.mark.gen_test
async def test_loop_does_not_wait_past_the_deadline(make_gateway, made):
    """A wait that would outlast the run's deadline is not begun."""
    client, upstream = await made()
    engine = client.served.gateway.engine
    from dataclasses import replace

    engine._limits = replace(engine._limits, timeout_seconds=5)
    upstream.fail(429, headers={"Retry-After": "10"})
    answer = await client.chat()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "10")


@pytest.mark.gen_test
async def test_loop_never_repeats_after_the_first_delta(made):
    """What has begun to answer is never asked again."""
    client, upstream = await made(fallbacks=["second/m"])
    upstream.reply(deltas=["half"], cut=True)
    answer = await client.chat()
    assert (answer.status, answer.error["code"]) == (502, "provider_stream_error")
    assert len(upstream.requests) == 1


@pytest.mark.gen_test
async def test_loop_falls_back(made):
    """A model that gives no answer is replaced by the next of the agent's."""
    client, upstream = await made(fallbacks=["second/other/model"], retries=0)
    upstream.fail(401)
    upstream.reply("from the second")
    answer = await client.chat()
    assert answer.text == "from the second"
    assert [r.body["model"] for r in upstream.requests] == ["scripted", "other/model"]
    assert answer.json["model"] == "edwin"


@pytest.mark.gen_test
async def test_loop_the_client_leaves_between_two_tries(made, connect):
    """A client that leaves while a repetition is due is not asked for again."""
    from tests.conftest import raw_chat

    client, upstream = await made()
    upstream.fail(429, headers={"Retry-After": "1"})
    answer = await connect(client.served, raw_chat())
    await upstream.arrival()
    await asyncio.sleep(0.1)
    await answer.close()
    engine = client.served.gateway.engine
    async with asyncio.timeout(1):
        while engine.running:
            await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    assert len(upstream.requests) == 1


@pytest.mark.gen_test
async def test_loop_context_overflow_is_the_requests_fault(made):
    """A context the provider calls too long is 400, by ``messages``."""
    client, upstream = await made(fallbacks=["second/m"])
    error = {"message": "too long", "code": "context_length_exceeded"}
    upstream.fail(400, {"error": error})
    answer = await client.chat()
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert answer.error["param"] == "messages"
    assert len(upstream.requests) == 1
