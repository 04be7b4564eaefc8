"""The WebSocket on the gateway's port: who may open it, and what it answers."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from edwin.testing.gateway import TOKEN
from edwin.validate import Schemas

SCHEMAS = Schemas()
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def request(method: str, id: str = "1", **params):
    return {"type": "req", "id": id, "method": method, "params": params}


@pytest.fixture
def socket(served, io_loop):
    """Return a function that opens a WebSocket: ``await socket(headers)``."""
    session = io_loop.run_sync(_session)

    async def open_socket(headers=None, **options):
        return await session.ws_connect(
            served.url + "/ws", headers=headers or {}, **options
        )

    yield open_socket
    io_loop.run_sync(session.close)


async def _session():
    return aiohttp.ClientSession()


async def ask(socket, frame):
    SCHEMAS.check("ws/request", frame)
    await socket.send_json(frame)
    answer = await socket.receive_json()
    SCHEMAS.check("ws/response", answer)
    return answer


async def closed(socket) -> tuple[int | None, str]:
    """Return code and reason with which the gateway closes."""
    while True:
        message = await socket.receive()
        if message.type == aiohttp.WSMsgType.CLOSE:
            return message.data, message.extra
        if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
            return socket.close_code, ""


@pytest.mark.gen_test
@pytest.mark.parametrize("by_header", [True, False])
async def test_socket_connects(socket, by_header):
    """A header or the first frame authenticates; ``connect`` says who and what."""
    ws = await socket(AUTH if by_header else None)
    params = {} if by_header else {"auth": {"token": TOKEN}}
    answer = await ask(ws, request("connect", **params))
    assert answer["ok"] is True and answer["id"] == "1"
    assert answer["payload"]["principal"] == "owner"
    assert answer["payload"]["protocol"] == 1
    health = await ask(ws, request("health", "2"))
    assert (health["id"], health["payload"]) == ("2", {"status": "ready"})


@pytest.mark.gen_test
async def test_socket_wrong_header_is_401(socket):
    """A wrong secret in the header is refused before the upgrade."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await socket({"Authorization": "Bearer wrong"})
    assert caught.value.status == 401


@pytest.mark.gen_test
async def test_socket_foreign_origin_is_403(socket):
    """A page of another origin is refused, though its token is right."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await socket(AUTH, origin="http://evil.example")
    assert caught.value.status == 403


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (request("connect", auth={"token": "wrong"}), "invalid_api_key"),
        (request("connect"), "invalid_api_key"),
        (request("health"), "forbidden"),
        ({"type": "req", "id": "1", "method": "nonsense", "params": {}}, None),
        ({"type": "res"}, None),
        ([], None),
    ],
)
async def test_socket_closes_on_anything_else(socket, frame, code):
    """What is not the protocol, or comes before ``connect``, closes with 1008."""
    ws = await socket()
    await ws.send_json(frame)
    answer = await ws.receive_json()
    SCHEMAS.check("ws/response", answer)
    assert answer["ok"] is False
    if code:
        assert answer["error"]["code"] == code
    assert (await closed(ws))[0] == 1008


@pytest.mark.gen_test
@pytest.mark.parametrize("data", ["not json", "\ud7ff{", ""])
async def test_socket_closes_on_garbage(socket, data):
    """A frame that is not JSON closes with 1008."""
    ws = await socket(AUTH)
    await ws.send_str(data)
    assert (await closed(ws))[0] == 1008


@pytest.mark.gen_test
async def test_socket_closes_on_a_long_frame(socket):
    """A frame over 64 KiB closes with 1009."""
    ws = await socket(AUTH)
    await ws.send_str('"' + "x" * 70_000 + '"')
    code, _ = await closed(ws)
    assert code in (1009, 1006)


@pytest.mark.gen_test
async def test_socket_is_told_that_the_gateway_stops(make_gateway):
    """When the gateway stops, its sockets are closed with 1001."""
    served = await make_gateway()
    async with (
        aiohttp.ClientSession(headers=AUTH) as session,
        session.ws_connect(served.url + "/ws") as ws,
    ):
        await ask(ws, request("connect"))
        waiting = asyncio.ensure_future(closed(ws))
        await served.gateway.stop()
        assert (await waiting)[0] == 1001
