"""``GET /healthz`` and ``GET /readyz``, and who is told more than others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import Client
from tests.test_principals import named, token
from tests.tools.conftest import odd


async def readiness(client: Client, **request: Any) -> Any:
    """Return what ``GET /readyz`` answers."""
    return json.loads((await client.request("/readyz", **request)).body)


async def with_server(make_gateway: Any, *words: str) -> Client:
    """Return a client of a gateway that has a server of tools, and two principals."""
    principals = [named("ops", "admin"), named("app", "runs:create", "metrics:read")]
    server = {"command": odd()["command"], "args": list(odd(*words)["args"])}
    return Client(
        await make_gateway(
            {
                "gateway": {"auth": {"principals": principals}},
                "agents": {"list": [{"id": "main", "tools": [{"mcp": server}]}]},
            }
        )
    )


@pytest.mark.gen_test
async def test_health_says_that_it_serves(client):
    """A gateway that serves says so to everybody."""
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        for secret in (None, "wrong"):
            answer = await client.request(path, token=secret)
            assert (answer.code, json.loads(answer.body)) == (200, {"status": status})


@pytest.mark.gen_test
async def test_health_tools_are_for_admins(make_gateway):
    """Admins are told how the servers of tools are doing, and nobody else is."""
    client = await with_server(make_gateway, "tools=3")
    async with asyncio.timeout(20):
        while (await readiness(client))["tools"][0]["state"] != "ready":
            await asyncio.sleep(0.01)
    told = {
        "server": client.served.gateway.tools.servers()[0].label,
        "state": "ready",
        "tools": 3,
        "restarts": 0,
        "error": None,
    }
    assert told["server"].endswith("odd_server.py")
    for secret in (None, "wrong", "", token("app"), token("nobody")):
        assert await readiness(client, token=secret) == {"status": "ready"}
    whole = {"status": "ready", "tools": [told]}
    assert await readiness(client, token=token("ops")) == whole
    assert await readiness(client) == whole


@pytest.mark.gen_test
async def test_health_gateway_is_ready_without_its_servers(make_gateway):
    """A server of tools that does not come up is told, and keeps nobody waiting."""
    client = await with_server(make_gateway, "dies")
    async with asyncio.timeout(20):
        while (await readiness(client))["tools"][0]["error"] is None:
            await asyncio.sleep(0.01)
    answer = await readiness(client)
    assert answer["status"] == "ready"
    assert answer["tools"][0]["error"] == "it ended with exit code 7"
    assert (await client.request("/readyz", token=None)).code == 200


@pytest.mark.gen_test
async def test_health_is_no_place_to_guess(make_gateway):
    """Wrong secrets count: whoever guesses too often is not told with the right one."""
    client = await with_server(make_gateway)
    for number in range(12):
        guess = await readiness(client, token=f"guess-{number}")
        assert guess == {"status": "ready"}
    assert await readiness(client, token=token("ops")) == {"status": "ready"}
