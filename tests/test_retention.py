"""What becomes of sessions and of idempotency keys with time."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from edwin.config import SessionsConfig
from edwin.sessions import retention
from edwin.sessions.retention import Retention
from tests.conftest import Client

KEY = {"Idempotency-Key": "order-17"}
DAY_S = 86_400.0


def context(served) -> list[str]:
    return [m["content"] for m in served.upstream.requests[-1].body["messages"]]


def backdate(served, seconds: float) -> None:
    """Let everything in the store have happened *seconds* earlier."""
    path = served.gateway._folder.path / "edwin.db"
    connection = sqlite3.connect(path, timeout=5)
    with connection:
        for table, column in (
            ("sessions", "used_at"),
            ("runs", "created_at"),
            ("runs", "finished_at"),
            ("keys", "created_at"),
            ("outcomes", "created_at"),
        ):
            connection.execute(f"UPDATE {table} SET {column} = {column} - ?", [seconds])
    connection.close()
    served.gateway.registry._live.clear()


async def clear_up(served, **limits) -> int:
    values = {"max_age_days": 0, "idle_reset_minutes": 0, "max_messages": 0} | limits
    return await Retention(served.gateway.store, SessionsConfig(**values)).clear_up()


async def transcript(client: Client, **query) -> list[str]:
    listed = (await client.request("/v1/sessions")).body
    session = json.loads(listed)["data"][0]
    path = f"/v1/sessions/item?agent=main&key={session['key']}&limit=100"
    for name, value in query.items():
        path += f"&{name}={value}"
    found = json.loads((await client.request(path)).body)
    return [entry["message"]["content"] for entry in found["data"]]


@pytest.mark.gen_test
@pytest.mark.parametrize("cached", [True, False])
async def test_retention_idle_session_begins_anew(make_gateway, cached):
    """A session not used for ``idleResetMinutes`` begins anew; what was is kept."""
    served = await make_gateway({"gateway": {"sessions": {"idleResetMinutes": 0.02}}})
    client = Client(served)
    await client.chat("one", user="ann")
    await client.chat("two", user="ann")
    assert context(served) == ["one", "one", "two"]
    if cached:
        await asyncio.sleep(1.3)
    else:
        backdate(served, 5)
    await client.chat("three", user="ann")
    assert context(served) == ["three"]
    await client.chat("four", user="ann")
    assert context(served) == ["three", "three", "four"]
    served.gateway.registry._live.clear()
    await client.chat("five", user="ann")
    assert context(served)[0] == "three"
    everything = await transcript(client, superseded="true")
    assert everything[:4] == ["one", "one", "two", "two"]


@pytest.mark.gen_test
async def test_retention_old_session_is_deleted_when_it_is_used(make_gateway):
    """Past ``maxAgeDays`` nothing of it is read, though nobody cleared up yet."""
    served = await make_gateway({"gateway": {"sessions": {"maxAgeDays": 2}}})
    client = Client(served)
    await client.chat("one", user="ann")
    backdate(served, 3 * DAY_S)
    await client.chat("two", user="ann")
    assert context(served) == ["two"]
    assert await transcript(client, superseded="true") == ["two", "two"]


@pytest.mark.gen_test
async def test_retention_clears_old_sessions_up(client):
    """Sessions not used for ``maxAgeDays`` go, the others stay."""
    served = client.served
    await client.chat("old", user="ann")
    backdate(served, 3 * DAY_S)
    await client.chat("new", user="bob")
    assert await clear_up(served, max_age_days=5) == 0
    assert await clear_up(served, max_age_days=2) > 0
    left = await served.gateway.store.sessions(principal="owner")
    assert len(left) == 1
    assert await transcript(client) == ["new", "new"]


@pytest.mark.gen_test
async def test_retention_keeps_the_newest_messages(client):
    """Of more than ``maxMessages`` the oldest go, by whole runs."""
    served = client.served
    for text in ("one", "two", "three", "four"):
        await client.chat(text, user="ann")
    assert await clear_up(served, max_messages=5) > 0
    assert await transcript(client) == ["three", "three", "four", "four"]
    assert await clear_up(served, max_messages=5) == 0
    served.gateway.registry._live.clear()
    await client.chat("five", user="ann")
    assert context(served) == ["three", "three", "four", "four", "five"]


@pytest.mark.gen_test
async def test_retention_keys_are_kept_for_a_day(client):
    """A key is free again 24 hours after its run's end, and not before."""
    served = client.served
    await client.chat("go", headers=KEY)
    served.gateway.engine._forget(next(iter(served.gateway.engine._recent)))
    backdate(served, retention.KEPT_S - 60)
    assert await clear_up(served) == 0
    again = await client.chat("go", headers=KEY)
    assert again.headers["x-edwin-replayed"] == "true"
    backdate(served, 120)
    assert await clear_up(served) > 0
    assert "x-edwin-replayed" not in (await client.chat("go", headers=KEY)).headers
    assert len(served.upstream.requests) == 2


@pytest.mark.gen_test
async def test_retention_looks_by_itself(make_gateway):
    """The gateway clears up now and then, and stops with it."""
    served = await make_gateway()
    client = Client(served)
    await client.chat("old", user="ann")
    backdate(served, 3 * DAY_S)
    limits = SessionsConfig(2, 0, 0)
    by_itself = Retention(served.gateway.store, limits, pause_s=0.01)
    by_itself.start()
    async with asyncio.timeout(5):
        while await served.gateway.store.sessions(principal="owner"):
            await asyncio.sleep(0.01)
    await by_itself.stop()
    await by_itself.stop()


@pytest.mark.gen_test
async def test_retention_reaches_transcripts_in_memory(make_gateway):
    """What was removed is not read any more, though its session was at hand."""
    served = await make_gateway({"gateway": {"sessions": {"maxMessages": 2}}})
    client = Client(served)
    for number in range(4):
        await client.chat(f"m{number}", user="ann")
    await served.gateway._retention.clear_up()
    await client.chat("now", user="ann")
    assert context(served) == ["m3", "m3", "now"]
