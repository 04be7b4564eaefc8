"""A gateway used by another program, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from edwin import mount
from edwin.client import ClientError, HttpClient
from edwin.errors import (
    InvalidRequest,
    RunNotFound,
    SessionNotFound,
    Unauthenticated,
)
from edwin.testing.gateway import TOKEN
from edwin.validate import Schemas
from tests.conftest import chat

SCHEMAS = Schemas()


async def ended(client: HttpClient, run_id: str) -> list[dict]:
    """Return all events of a run."""
    return [event async for event in client.run_events(run_id)]


def texts(events: list[dict]) -> str:
    """Return the answer's text, piece by piece."""
    return "".join(e["payload"].get("text", "") for e in events)


@pytest.mark.gen_test
async def test_client_runs(served):
    """A run is begun, followed to its end, shown and listed."""
    served.upstream.reply("Hello")
    async with HttpClient(served.url + "/", TOKEN) as client:
        run = await client.start_run(chat("Hi"), session_key="a&b+c#d%")
        SCHEMAS.check("runs/run", run)
        events = await ended(client, run["id"])
        for event in events:
            SCHEMAS.check("runs/event", event)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert texts(events) == "Hello" and events[-1]["event"] == "run.finished"
        shown = await client.show_run(run["id"])
        assert (shown["state"], shown["message"]["content"]) == ("finished", "Hello")
        rest = [e async for e in client.run_events(run["id"], after=len(events) - 1)]
        assert rest == events[-1:]
        for wanted, count in (
            ({}, 1),
            ({"session": "a&b+c#d%"}, 1),
            ({"state": "failed"}, 0),
        ):
            page = await client.list_runs(**wanted)
            SCHEMAS.check("runs/run_list", page)
            assert len(page["data"]) == count


@pytest.mark.gen_test
async def test_client_cancels_a_run(served):
    """A run that is cancelled has ended when the call returns."""
    served.upstream.hang(after=["half"])
    async with HttpClient(served.url, TOKEN) as client:
        run = await client.start_run(chat("Hi"), idempotency_key="one", timeout_ms=9000)
        again = await client.start_run(chat("Hi"), idempotency_key="one")
        assert again["id"] == run["id"]
        await served.upstream.arrival()
        assert (await client.cancel_run(run["id"]))["state"] == "cancelled"
        assert (await client.cancel_run(run["id"]))["state"] == "cancelled"


@pytest.mark.gen_test
async def test_client_sessions(make_gateway):
    """Sessions are listed, shown by pages, begun anew and deleted."""
    served = await make_gateway({"agents": {"list": [{"id": "main"}, {"id": "beta"}]}})
    async with HttpClient(served.url, TOKEN) as client:
        for agent in ("main", "beta"):
            run = await client.start_run(
                chat("Hi"), agent=agent, session_key="a&b+c#d%"
            )
            await ended(client, run["id"])
        page = await client.list_sessions(limit=1)
        SCHEMAS.check("sessions/session_list", page)
        other = await client.list_sessions(limit=1, after=page["next"])
        assert [page["data"][0]["agent"], other["data"][0]["agent"]] == ["beta", "main"]
        assert len((await client.list_sessions(agent="beta"))["data"]) == 1

        first = await client.show_session("main", "a&b+c#d%", limit=1)
        SCHEMAS.check("sessions/transcript", first)
        assert first["data"][0]["message"]["content"] == "Hi" and first["has_more"]
        second = await client.show_session("main", "a&b+c#d%", after=first["next"])
        assert [entry["own"] for entry in second["data"]] == [True]

        SCHEMAS.check(
            "sessions/was_reset", await client.reset_session("main", "a&b+c#d%")
        )
        assert (await client.show_session("main", "a&b+c#d%"))["data"] == []
        kept = await client.show_session("main", "a&b+c#d%", superseded=True)
        assert [entry["current"] for entry in kept["data"]] == [False, False]
        SCHEMAS.check(
            "sessions/deleted", await client.delete_session("beta", "a&b+c#d%")
        )
        with pytest.raises(SessionNotFound):
            await client.show_session("beta", "a&b+c#d%")


@pytest.mark.gen_test
async def test_client_reaches_a_mounted_gateway(served):
    """A gateway inside another application is reached under its prefix."""
    host = Application()
    mount(host, served.gateway, "/ai")
    socket, port = bind_unused_port()
    server = HTTPServer(host)
    server.add_sockets([socket])
    async with HttpClient(f"http://127.0.0.1:{port}/ai", TOKEN) as client:
        assert (await client.list_runs())["data"] == []
    server.stop()
    await server.close_all_connections()


@pytest.mark.gen_test
async def test_client_raises_what_the_gateway_raised(served):
    """An error that Edwin knows has its class, message, code and field."""
    async with HttpClient(served.url, TOKEN) as client:
        with pytest.raises(RunNotFound) as caught:
            await client.show_run("run_a/b?c")
        assert "'run_a/b?c'" in caught.value.message
        with pytest.raises(RunNotFound):
            await ended(client, "nobody")
        with pytest.raises(InvalidRequest) as caught:
            await client.list_runs(limit=0)
        assert (caught.value.param, caught.value.code) == ("limit", "invalid_value")
    async with HttpClient(served.url, "wrong") as client:
        with pytest.raises(Unauthenticated, match="Incorrect API key"):
            await client.list_sessions()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def listening(handler: Handler) -> tuple[asyncio.Server, str]:
    """Return a server that does to each connection what *handler* does, and its URL."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("status", "body", "message", "code"),
    [
        (502, b"<html>Bad Gateway</html>", "not as a gateway does", None),
        (200, b"It works!", "not as a gateway does", None),
        (200, b"[]", "not as a gateway does", None),
        (302, b"", "not as a gateway does", None),
        (
            418,
            b'{"error": {"message": "tea", "type": "x", "param": null, "code": "pot"}}',
            "tea",
            "pot",
        ),
    ],
)
async def test_client_tells_what_is_no_gateway(status, body, message, code):
    """What answers and is no gateway, or a later one, is an error with its status."""

    async def answer(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server, url = await listening(answer)
    async with HttpClient(url) as client:
        with pytest.raises(ClientError, match=message) as caught:
            await client.list_runs()
    assert (caught.value.status, caught.value.code) == (status, code)
    server.close()


@pytest.mark.gen_test
async def test_client_tells_that_nobody_answers():
    """Where nobody listens, or the answer breaks off, the address is named."""

    async def break_off(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        await writer.drain()
        writer.close()

    server, url = await listening(break_off)
    for _ in range(2):
        async with HttpClient(url) as client:
            with pytest.raises(ClientError, match=f"{url} cannot be reached") as caught:
                await client.list_runs()
        assert caught.value.status == 0
        server.close()
        await server.wait_closed()


@pytest.mark.gen_test
async def test_client_follows_events_past_a_lost_connection(served):
    """Events whose connection breaks go on where they were, none lost or doubled."""
    served.upstream.hang(after=["one "], then=["two"])
    port = int(served.url.rsplit(":", 1)[1])
    count = 0

    async def forward(reader, writer) -> None:
        """Pass on what comes, and cut the first stream in the middle of an event."""
        nonlocal count
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        outer.write(await reader.readuntil(b"\r\n\r\n"))
        count += 1
        seen, cut = b"", count == 1
        while piece := await inner.read(65536):
            seen += piece
            if cut and b"one " in seen:
                piece = piece[: piece.index(b"one ")]
            writer.write(piece)
            await writer.drain()
            if cut and b"one " in seen:
                break
        outer.close()
        writer.close()

    server, url = await listening(forward)
    async with HttpClient(served.url, TOKEN) as direct:
        run = await direct.start_run(chat("Hi"))
        await served.upstream.arrival()
        async with HttpClient(url, TOKEN, pauses_s=(0.01,)) as client:
            events = []
            async with aclosing(client.run_events(run["id"])) as stream:
                async for event in stream:
                    events.append(event)
                    if texts(events) == "one ":
                        served.upstream.release()
        assert count == 2
        assert events == await ended(direct, run["id"])
    server.close()


@pytest.mark.gen_test
async def test_client_gives_up_on_events_that_stay_lost():
    """A gateway that is gone for good is an error, after a few attempts."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    count = 0

    async def answer(reader, writer) -> None:
        nonlocal count
        count += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await writer.drain()
        writer.close()

    server, url = await listening(answer)
    async with HttpClient(url, pauses_s=(0.01, 0.01)) as client:
        with pytest.raises(ClientError, match="cannot be reached"):
            await ended(client, "run_1")
        assert count == 3
        server.close()
        await server.wait_closed()
        with pytest.raises(ClientError, match="cannot be reached"):
            await ended(client, "run_1")
