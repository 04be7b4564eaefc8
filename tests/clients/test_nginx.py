"""curl -N and others through nginx, with its buffering as it is shipped."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import aiohttp
import pytest

from edwin.testing.gateway import TOKEN
from tests.clients.conftest import PATIENCE_S, must_have
from tests.conftest import Client, chat

AS_SHIPPED = ""
WITH_1_1 = "proxy_http_version 1.1;"
UPGRADES = """
proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection upgrade;
proxy_set_header Host $http_host;
"""
# What curl exits with when an answer breaks off.
PARTIAL_FILE = 18
PROMPT_S = 2

versions = pytest.mark.parametrize(
    "directives", [AS_SHIPPED, WITH_1_1], ids=["as-shipped", "http-1.1"]
)


class Curl:
    """``curl -N``, whose output is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.received = b""

    async def until(self, mark: str) -> None:
        """Read until *mark* has arrived."""
        async with asyncio.timeout(PATIENCE_S):
            while mark.encode() not in self.received:
                piece = await self.process.stdout.read(65536)
                assert piece, f"curl ended before {mark!r}: {self.received!r}"
                self.received += piece

    async def to_end(self) -> int:
        """Read to the end; return curl's exit code."""
        async with asyncio.timeout(PATIENCE_S):
            rest, _ = await self.process.communicate()
        self.received += rest
        return self.process.returncode

    async def kill(self) -> None:
        """End it, whatever it is doing."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    @property
    def events(self) -> list:
        """The documents of the stream so far, ``[DONE]`` as text."""
        lines = self.received.decode().split("\n\n")
        data = [line.removeprefix("data: ") for line in lines if line]
        return [one if one == "[DONE]" else json.loads(one) for one in data]

    @property
    def text(self) -> str:
        """The text of the stream so far."""
        return "".join(
            choice["delta"].get("content", "")
            for event in self.events
            if event != "[DONE]"
            for choice in event.get("choices", [])
        )


@pytest.fixture
def curl(io_loop):
    """Start curl: ``await curl(nginx.url, "Hello", stream=True)``."""
    found = shutil.which("curl")
    program = must_have(found and Path(found), "curl", "install it")
    started = []

    async def start(url, *messages, token=TOKEN, options=(), **fields):
        process = await asyncio.create_subprocess_exec(
            *(program, "-q", "-sS", "-N", *options),
            *("--noproxy", "*", url + "/v1/chat/completions"),
            *("-H", f"Authorization: Bearer {token}"),
            *("-H", "Content-Type: application/json"),
            *("-d", json.dumps(chat(*messages, **fields))),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        started.append(Curl(process))
        return started[-1]

    yield start
    for one in started:
        io_loop.run_sync(one.kill)


@pytest.mark.gen_test
@versions
async def test_nginx_stream_arrives_as_it_is_made(
    curl, start_nginx, make_gateway, directives
):
    """Head and pieces pass while the provider is silent, each before the next is."""
    served = await make_gateway({"gateway": {"http": {"headDelayMs": 20}}})
    nginx = await start_nginx(served.url, directives)
    pieces = ["one", " two", " three"]
    marks = ['"role":"assistant"', *(f'"content":"{piece}"' for piece in pieces)]
    for made, mark in enumerate(marks):
        served.upstream.hang(after=pieces[:made], then=pieces[made:])
        answer = await curl(nginx.url, stream=True)
        await answer.until(mark)
        served.upstream.release()
        assert await answer.to_end() == 0
        assert answer.text == "one two three"
        assert answer.events[-1] == "[DONE]"


@pytest.mark.gen_test
@versions
async def test_nginx_client_leaves(curl, start_nginx, served, directives):
    """Whoever leaves nginx ends the call to the provider, at once."""
    nginx = await start_nginx(served.url, directives)
    served.upstream.hang(after=["some"])
    answer = await curl(nginx.url, stream=True, user="ann")
    await answer.until("some")
    await answer.kill()
    async with asyncio.timeout(PROMPT_S):
        await served.upstream.requests[0].closed.wait()
    assert (await Client(nginx).chat("next", user="ann")).status == 200


@pytest.mark.gen_test
@versions
async def test_nginx_broken_stream_is_cut(curl, start_nginx, served, directives):
    """Half an answer has an error event and no clean end behind nginx either."""
    nginx = await start_nginx(served.url, directives)
    served.upstream.reply(deltas=["half"], cut=True)
    answer = await curl(nginx.url, stream=True)
    code = await answer.to_end()
    assert answer.text == "half"
    assert answer.events[-1]["error"]["code"] == "provider_stream_error"
    assert code == PARTIAL_FILE


@pytest.mark.gen_test
@versions
async def test_nginx_broken_stream_is_an_error_in_a_client(
    run_script, start_nginx, served, directives
):
    """The npm package raises the error with its code, through nginx too."""
    nginx = await start_nginx(served.url, directives)
    served.upstream.reply(deltas=["half"], cut=True)
    outcome = await run_script(nginx.url, "openai", "broken")
    assert outcome["text"] == "half"
    assert outcome["error"]["code"] == "provider_stream_error"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("fields", "failure", "status", "code", "param"),
    [
        ({"token": "wrong"}, None, 401, "invalid_api_key", None),
        ({"messages": []}, None, 400, "empty_array", "messages"),
        ({"model": "x"}, None, 404, "model_not_found", "model"),
        ({"user": "x" * 5000}, None, 413, "body_too_large", None),
        ({}, 429, 429, "provider_rate_limited", None),
        ({}, 500, 502, "provider_unavailable", None),
    ],
)
async def test_nginx_errors_pass(
    curl, start_nginx, make_gateway, fields, failure, status, code, param
):
    """Status, envelope, request id and Retry-After come through as they were sent."""
    served = await make_gateway({"gateway": {"http": {"maxBodyBytes": 4096}}})
    nginx = await start_nginx(served.url)
    if failure:
        served.upstream.fail(failure, headers={"Retry-After": "7"})
    answer = await curl(nginx.url, stream=True, options=["-i"], **fields)
    assert await answer.to_end() == 0
    head, _, body = answer.received.decode().partition("\r\n\r\n")
    error = json.loads(body)["error"]
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert (error["code"], error["param"]) == (code, param)
    assert "x-request-id: req_" in head.lower()
    assert ("retry-after: 7" in head.lower()) == bool(failure)


@pytest.mark.gen_test
async def test_nginx_socket(start_nginx, served):
    """The WebSocket passes, for a page on nginx's own address too."""
    nginx = await start_nginx(served.url, UPGRADES)
    connect = {"type": "req", "id": "1", "method": "connect"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(nginx.url + "/ws", origin=nginx.url) as socket,
    ):
        await socket.send_json(connect | {"params": {"auth": {"token": TOKEN}}})
        assert (await socket.receive_json())["payload"]["principal"] == "owner"
        await socket.send_json(
            {"type": "req", "id": "2", "method": "health", "params": {}}
        )
        assert (await socket.receive_json())["payload"] == {"status": "ready"}


@pytest.mark.gen_test
async def test_nginx_socket_of_a_foreign_page_is_403(start_nginx, served):
    """nginx does not make a foreign page the gateway's own."""
    nginx = await start_nginx(served.url, UPGRADES)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(nginx.url + "/ws", origin="http://elsewhere")
    assert caught.value.status == 403
