"""Tokens over HTTP: shown once, and worth nothing from the moment they are changed."""

from __future__ import annotations

import asyncio
import json

import pytest

from edwin.testing.gateway import TOKEN
from edwin.validate import Schemas
from tests.conftest import Client, raw_chat

SCHEMAS = Schemas()
ASKED = {"id": "ci", "scopes": ["runs:create", "runs:read"]}


async def create(client: Client, **rest) -> dict:
    answer = await client.request("/v1/tokens", ASKED | rest)
    assert answer.code == 201, answer.body
    made = json.loads(answer.body)
    SCHEMAS.check("tokens/token", made)
    return made


async def code(client: Client, token: str) -> int:
    return (await client.request("/v1/runs", token=token)).code


@pytest.mark.gen_test
async def test_tokens_are_shown_once(served, client):
    """The answer that makes a token has it; the list and the store do not."""
    made = await create(client)
    assert await code(client, made["token"]) == 200
    page = json.loads((await client.request("/v1/tokens")).body)
    SCHEMAS.check("tokens/token_list", page)
    secret = made["token"].encode()
    folder = served.gateway._folder.path
    for file in folder.iterdir():
        assert secret[-43:] not in file.read_bytes(), file.name


@pytest.mark.gen_test
@pytest.mark.parametrize("tools", [["papers_read_*", "clock"], []])
async def test_tokens_narrow_tools(served, client, tools):
    """A token's patterns of tools are shown, and outlive its rotation; [] is none."""
    assert (await create(client, id="all"))["tools"] is None
    made = await create(client, tools=tools)
    assert made["tools"] == tools
    answer = await client.request("/v1/tokens/ci/rotate", {}, method="POST")
    assert json.loads(answer.body)["tools"] == tools
    principal = served.gateway.authenticator.named("ci").principal
    assert principal.tools == tuple(tools)
    page = json.loads((await client.request("/v1/tokens")).body)
    SCHEMAS.check("tokens/token_list", page)
    assert {one["id"]: one["tools"] for one in page["data"]} == {
        "all": None,
        "ci": tools,
    }


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("tools", "param"),
    [("clock", "tools"), ([""], "tools[0]"), (["a", 1], "tools[1]")],
)
async def test_tokens_refuse_what_is_no_list_of_tools(client, tools, param):
    """Patterns of tools are a list of texts that are not empty."""
    answer = await client.request("/v1/tokens", ASKED | {"tools": tools})
    assert answer.code == 400
    assert json.loads(answer.body)["error"]["param"] == param


@pytest.mark.gen_test
async def test_tokens_outlive_the_gateway(make_gateway, tmp_path):
    """A token made before a restart opens the same after it."""
    served = await make_gateway(state_dir=tmp_path / "s")
    made = await create(Client(served), tools=["clock"])
    await served.stop()
    served = await make_gateway(state_dir=tmp_path / "s")
    assert await code(Client(served), made["token"]) == 200
    assert served.gateway.authenticator.named("ci").principal.tools == ("clock",)


@pytest.mark.gen_test
@pytest.mark.parametrize("change", ["rotate", "revoke"])
async def test_tokens_that_are_changed(served, client, connect, change):
    """A token that was rotated or revoked is 401 at once, and what it has open ends."""
    made = await create(client)
    streams = []
    for secret in (made["token"], TOKEN):
        served.upstream.hang(["half "], then=["end"])
        data = raw_chat("go", stream=True).replace(TOKEN.encode(), secret.encode())
        streams.append(await connect(served, data))
        await streams[-1].until(b"half")
    if change == "rotate":
        answer = await client.request("/v1/tokens/ci/rotate", {}, method="POST")
        assert await code(client, json.loads(answer.body)["token"]) == 200
    else:
        answer = await client.request("/v1/tokens/ci", method="DELETE")
        SCHEMAS.check("tokens/revoked", json.loads(answer.body))
    assert await code(client, made["token"]) == 401
    async with asyncio.timeout(5):
        assert b"[DONE]" not in await streams[0].to_end()
        await served.upstream.requests[0].closed.wait()
    served.upstream.release()
    assert b"[DONE]" in await streams[1].until(b"[DONE]")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "change",
    [
        {"id": "ci"},
        {"id": "owner"},
        {"id": "Ci"},
        {"id": "x", "expiresAt": "2027-02-31"},
        {"id": "x", "scopes": ["everything"]},
    ],
)
async def test_tokens_that_cannot_be(client, change):
    """A name that is taken, and what no schema lets pass, is 400."""
    await create(client)
    answer = await client.request("/v1/tokens", ASKED | change)
    assert answer.code == 400
    assert json.loads(answer.body)["error"]["param"] in ("id", "expiresAt", "scopes[0]")


@pytest.mark.gen_test
async def test_tokens_nobody_has(client):
    """A token that is not there cannot be changed."""
    for method, path in (("DELETE", "/v1/tokens/x"), ("POST", "/v1/tokens/x/rotate")):
        answer = await client.request(
            path, {} if method == "POST" else None, method=method
        )
        assert answer.code == 404
        assert json.loads(answer.body)["error"]["code"] == "token_not_found"


@pytest.mark.gen_test
async def test_tokens_end_sockets(served, client):
    """A socket of a token that was revoked is closed."""
    import aiohttp

    made = await create(client)
    headers = {"Authorization": f"Bearer {made['token']}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(served.url + "/ws", headers=headers) as socket,
    ):
        frame = {"type": "req", "id": "1", "method": "connect", "params": {}}
        await socket.send_json(frame)
        await socket.receive_json()
        await client.request("/v1/tokens/ci", method="DELETE")
        async with asyncio.timeout(5):
            while not socket.closed:
                await socket.receive()
