"""A store that cannot be written: what is refused, what goes on, and afterwards."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Answer, Client, chat
from tests.process import GatewayProcess
from tests.store.samples import held, obstacle

KEY = "x-edwin-session-key"
ITEM = "/v1/sessions/item?agent=main&key="
READ_ONLY = "query_only = ON"
# What needs the store, and how it is asked for.
NEEDY = {
    "session": ("/v1/chat/completions", {"user": "ann"}, {}),
    "stream": ("/v1/chat/completions", {"user": "ann", "stream": True}, {}),
    "idempotent": ("/v1/chat/completions", {}, {"Idempotency-Key": "order-17"}),
    "detached": ("/v1/runs", {}, {}),
}


async def ready(client: Client) -> tuple[int, str]:
    """Return what ``GET /readyz`` says."""
    response = await client.request("/readyz", token=None)
    return response.code, json.loads(response.body)["status"]


async def until_ready(client: Client, *, is_so: bool = True) -> None:
    """Wait until the gateway says that it is ready, or that it is not."""
    async with asyncio.timeout(20):
        while ((await ready(client))[0] == 200) is not is_so:
            await asyncio.sleep(0.05)


async def needs(client: Client, what: str) -> Answer:
    """Send a request that needs the store."""
    path, fields, headers = NEEDY[what]
    return Answer(await client.request(path, chat(what, **fields), headers=headers))


async def texts(client: Client, key: str) -> list[str]:
    """Return the texts of a session's messages."""
    response = await client.request(f"{ITEM}{key}")
    assert response.code == 200, response.body
    return [item["message"]["content"] for item in json.loads(response.body)["data"]]


async def check_trouble(client: Client, calls, key: str) -> None:
    """While the store cannot be written: what is refused, what goes on.

    Args:
        client: Of the gateway.
        calls: The requests that reach the provider; a list that grows.
        key: Of a session of one question and one answer.

    """
    assert await ready(client) == (503, "storage_unavailable")
    before = len(calls)
    for what in NEEDY:
        answer = await needs(client, what)
        assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert len(calls) == before
    for stream in (False, True):
        assert (await client.chat("alone", stream=stream)).text == "alone"
    assert await texts(client, key) == ["first", "first"]
    for path in ("/v1/sessions", "/v1/runs", "/healthz", "/metrics"):
        assert (await client.request(path)).code == 200


async def check_recovery(client: Client, key: str) -> None:
    """All goes on, without a restart; what was refused has left nothing."""
    await until_ready(client)
    assert await texts(client, key) == ["first", "first"]
    assert (await client.chat("next", user="ann")).text == "next"
    assert await texts(client, key) == ["first", "first", "next", "next"]
    for what in ("idempotent", "detached"):
        answer = await needs(client, what)
        assert answer.status in (200, 202)
        assert "x-edwin-replayed" not in answer.headers


async def stumble(client: Client) -> None:
    """Send the request that finds out."""
    answer = await client.chat("finds out", user="bob")
    assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@pytest.mark.gen_test
async def test_storage_read_only(client):
    """While the disk is read-only, only what needs to be written is refused."""
    upstream, engine = client.served.upstream, client.served.gateway.engine
    key = (await client.chat("first", user="ann")).headers[KEY]
    with obstacle(READ_ONLY):
        await stumble(client)
        await check_trouble(client, upstream.requests, key)
        assert not engine.live() and not engine._lanes._lanes
    await check_recovery(client, key)


@pytest.mark.gen_test
async def test_storage_full(client):
    """On a full disk what finds no room is refused, and what finds some goes on."""
    key = (await client.chat("first", user="ann")).headers[KEY]
    with obstacle("max_page_count = 1"):
        large = await client.chat("x" * 1_000_000, user="ann")
        assert (large.status, large.error["code"]) == (503, "storage_unavailable")
        assert await texts(client, key) == ["first", "first"]
        await until_ready(client)
        assert (await client.chat("small", user="ann")).text == "small"
    with obstacle("max_page_count = 1000000"):
        assert (await client.chat("x" * 1_000_000, user="ann")).status == 200


@pytest.mark.gen_test
async def test_storage_locked(client, tmp_path):
    """While another process holds the database, only what needs it is refused."""
    key = (await client.chat("first", user="ann")).headers[KEY]
    with held(tmp_path / "state-0" / "edwin.db"):
        await stumble(client)
        await check_trouble(client, client.served.upstream.requests, key)
    await check_recovery(client, key)


@contextmanager
def no_room(pid: int) -> Iterator[None]:
    """Let no file of process *pid* be written any more."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.gen_test
async def test_storage_writes_that_the_system_refuses(upstream, tmp_path):
    """A process whose files take no byte any more goes on, and goes on afterwards."""
    config = {
        "agents": {"defaults": {"model": "up/scripted", "instructions": ""}},
        "models": {
            "providers": {"up": {"api": "openai-completions", "baseUrl": upstream.url}}
        },
    }
    loop = asyncio.get_running_loop()
    process = await loop.run_in_executor(None, GatewayProcess, tmp_path, config)
    with process:
        client = Client(process)
        key = (await client.chat("first", user="ann")).headers[KEY]
        with no_room(process.process.pid):
            await stumble(client)
            await check_trouble(client, upstream.requests, key)
        await check_recovery(client, key)
        process.terminate()
        assert await loop.run_in_executor(None, process.wait) == 0


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_storage_fails_under_a_run(client, stream):
    """An answer that could not be kept is none: its client is told so.

    The question is kept, and the conversation goes on.
    """
    upstream = client.served.upstream
    key = (await client.chat("first", user="ann")).headers[KEY]
    upstream.hang(["half "], then=["whole"])
    call = asyncio.ensure_future(client.chat("second", user="ann", stream=stream))
    await upstream.arrival(2)
    await asyncio.sleep(0.2)
    with obstacle(READ_ONLY):
        upstream.release()
        answer = await call
        if stream:
            assert answer.cut and "[DONE]" not in answer.body
            assert answer.events[-1]["error"]["code"] == "storage_unavailable"
        else:
            assert answer.status == 503
            assert answer.error["code"] == "storage_unavailable"
        assert await ready(client) == (503, "storage_unavailable")
        assert not client.served.gateway.engine.live()
    await until_ready(client)
    assert (await client.chat("third", user="ann")).text == "third"
    context = [m["content"] for m in upstream.requests[-1].body["messages"]]
    assert context[:2] == ["first", "first"] and context[-1] == "third"
    kept = await client.request(f"{ITEM}{key}&superseded=true")
    assert "second" in [
        item["message"]["content"] for item in json.loads(kept.body)["data"]
    ]


@pytest.mark.gen_test
async def test_storage_fails_under_a_keyed_run(client):
    """Such a run is not carried out again under its key, then or later."""
    upstream = client.served.upstream
    upstream.hang(then=["done"])
    call = asyncio.ensure_future(needs(client, "idempotent"))
    await upstream.arrival()
    with obstacle(READ_ONLY):
        upstream.release()
        first = await call
        assert (first.status, first.error["code"]) == (503, "storage_unavailable")
        assert (await needs(client, "idempotent")).error == first.error
    await until_ready(client)
    again = await needs(client, "idempotent")
    assert (again.status, again.error) == (503, first.error)
    assert again.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


@pytest.mark.gen_test
async def test_storage_keeps_ledger_lines_for_later(client):
    """The lines of runs without a session wait, and are written when they can be."""
    with obstacle(READ_ONLY):
        await stumble(client)
        ids = set()
        for _ in range(5):
            answer = await client.chat("alone")
            ids.add(answer.headers["x-edwin-run-id"])
        assert await ready(client) == (503, "storage_unavailable")
    await until_ready(client)
    store = client.served.gateway.store
    async with asyncio.timeout(5):
        while not ids <= {record.run_id for record in await store.runs()}:
            await asyncio.sleep(0.05)


@pytest.mark.gen_test
async def test_storage_waiting_runs_are_not_begun(client):
    """Runs that wait when the store fails reach no provider, and are told."""
    upstream = client.served.upstream
    upstream.hang(then=["done"])
    first = asyncio.ensure_future(client.chat("first", user="ann"))
    await upstream.arrival()
    waiting = [asyncio.ensure_future(client.chat(f"{n}", user="ann")) for n in range(3)]
    async with asyncio.timeout(5):
        while client.served.gateway.engine.waiting < 3:
            await asyncio.sleep(0.01)
    with obstacle(READ_ONLY):
        upstream.release()
        answers = [await call for call in (first, *waiting)]
        codes = {(answer.status, answer.error["code"]) for answer in answers}
        assert codes == {(503, "storage_unavailable")}
    # They were taken when the store could be written.
    assert len(upstream.requests) == 1
    await until_ready(client)
    assert (await client.chat("next", user="ann")).text == "next"
