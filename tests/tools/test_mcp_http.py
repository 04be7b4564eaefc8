"""Connections to MCP servers over HTTP: the SDK's, and one that behaves oddly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from edwin.tools.base import ToolFailed
from tests.tools.conftest import HERE, there

ERAS = {"today": (), "handshake": ("--handshake",)}


class Served:
    """The SDK's server in a process of its own, on a port that it keeps."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.port = "0"
        self.start()
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        """Start it; returns when it listens."""
        self.process = subprocess.Popen(
            [sys.executable, HERE / "mcp_server.py", "http", self.port, *self.words],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="module", params=ERAS)
def sdk(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Return the SDK's server, by the protocol of today and of before."""
    served = Served(*ERAS[request.param])
    yield served
    served.kill()


@pytest.fixture(params=ERAS)
def mortal(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Return one to be killed."""
    served = Served(*ERAS[request.param])
    yield served
    served.kill()


@pytest.mark.gen_test
async def test_mcp_http_calls(connected, sdk):
    """A server that is an HTTP endpoint is one like any other."""
    server = await connected(url=sdk.url)
    sums = [server.call("add", first=n, second=1) for n in range(20)]
    assert await asyncio.gather(*sums) == [str(n + 1) for n in range(20)]
    with pytest.raises(ToolFailed, match="no paper"):
        await server.call("fail", reason="no paper")


@pytest.mark.gen_test
async def test_mcp_http_cancel_one_of_two(connected, sdk, tmp_path):
    """A call that nobody waits for is ended in the server; the others go on."""
    server = await connected(url=sdk.url)
    folders = [tmp_path / name for name in "ab"]
    calls = []
    for folder in folders:
        folder.mkdir()
        calls.append(asyncio.create_task(server.call("hold", folder=str(folder))))
        await there(folder / "begun")
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    await there(folders[0] / "cancelled")
    (folders[1] / "go").touch()
    assert await calls[1] == "went on"


@pytest.mark.gen_test
async def test_mcp_http_list_changed(connected, sdk):
    """Tools that come later are there once the server says so."""
    server = await connected(url=sdk.url)
    before = len(await server.tools())
    assert await server.call("grow") == "grown"
    await server.until(lambda status: status.tools == before + 1)
    assert await server.call("late") == "new"


@pytest.mark.gen_test
async def test_mcp_http_killed(connected, mortal, tmp_path):
    """A server that dies fails its calls at once, and serves again when it is back."""
    server = await connected(url=mortal.url)
    call = asyncio.create_task(server.call("hold", folder=str(tmp_path)))
    await there(tmp_path / "begun")
    mortal.kill()
    with pytest.raises(ToolFailed):
        await call
    status = await server.until(lambda status: status.state == "restarting")
    assert status.error
    mortal.start()
    assert (await server.ready()).restarts >= 1
    assert await server.call("add", first=1, second=2) == "3"
    mortal.kill()
    # Nobody calls: it is noticed all the same.
    await server.until(lambda status: status.state == "restarting")


class Odd(RequestHandler):
    """An endpoint of 2025-06-18 that answers in JSON, as its script says.

    ``script`` is called with handler and message, and says whether it has answered.
    """

    def initialize(self, script: Callable[[Odd, Any], Any], seen: list[Any]) -> None:
        self.script = script
        self.seen = seen

    def get(self) -> None:
        """Have no news."""
        self.set_status(405)

    delete = get

    async def post(self) -> None:
        """Answer."""
        message = orjson.loads(self.request.body)
        self.seen.append((self.request, message))
        if await self.script(self, message):
            return
        if "id" not in message:
            self.set_status(202)
            return
        results = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "odd", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": "done"}]},
        }
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] in results:
            reply["result"] = results[message["method"]]
        else:
            reply["error"] = {"code": -32601, "message": "Method not found"}
        if message["method"] == "initialize":
            self.set_header("mcp-session-id", f"session-{len(self.seen)}")
        self.set_header("Content-Type", "application/json")
        self.write(orjson.dumps(reply))


@pytest.fixture
def odd_endpoint(io_loop: IOLoop) -> Iterator[Callable[..., tuple[str, list[Any]]]]:
    """Serve as a script says: ``url, seen = odd_endpoint(script)``."""
    servers = []

    def serve(script: Any) -> tuple[str, list[Any]]:
        seen: list[Any] = []
        rules = [(r"/mcp", Odd, {"script": script, "seen": seen})]
        server = HTTPServer(Application(rules, log_function=lambda handler: None))
        (listener, *_) = sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        servers.append(server)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", seen

    yield serve
    for server in servers:
        server.stop()
        io_loop.run_sync(server.close_all_connections)


async def plainly(handler: Odd, message: Any) -> bool:
    """Leave every answer to the endpoint."""
    return False


@pytest.mark.gen_test
async def test_mcp_http_headers(connected, odd_endpoint, monkeypatch):
    """Configured headers go with every call, and no proxy of the environment's."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    url, seen = odd_endpoint(plainly)
    server = await connected(url=url, headers={"X-Key": "k3y"})
    assert await server.call("t") == "done"
    assert {request.headers["X-Key"] for request, _ in seen} == {"k3y"}
    asked = next(m for _, m in seen if m.get("method") == "initialize")
    # Nothing is offered: no sampling, no roots, no elicitation.
    assert asked["params"]["capabilities"] == {}


@pytest.mark.gen_test
async def test_mcp_http_forgotten_session(connected, odd_endpoint):
    """A server that has forgotten the session fails one call, and is met anew."""
    forgotten = []

    async def forget(handler: Odd, message: Any) -> bool:
        if message.get("method") == "tools/call" and not forgotten:
            forgotten.append(handler.request.headers["mcp-session-id"])
            handler.set_status(404)
            return True
        return False

    url, seen = odd_endpoint(forget)
    server = await connected(url=url)
    with pytest.raises(ToolFailed):
        await server.call("t")
    status = await server.until(lambda status: status.restarts == 1)
    assert status.error == "it has forgotten the session"
    await server.ready()
    assert await server.call("t") == "done"
    assert seen[-1][0].headers["mcp-session-id"] not in forgotten


@pytest.mark.gen_test
async def test_mcp_http_redirects_elsewhere_are_not_followed(connected, odd_endpoint):
    """A redirect does not take the headers to another server."""
    elsewhere, seen = odd_endpoint(plainly)

    async def redirect(handler: Odd, message: Any) -> bool:
        handler.redirect(elsewhere, status=307)
        return True

    url, _ = odd_endpoint(redirect)
    server = await connected(url=url, headers={"X-Key": "k3y"})
    status = await server.until(lambda status: status.state == "restarting")
    assert "HTTP status 307" in status.error
    assert not seen


@pytest.mark.gen_test
async def test_mcp_http_refusals_are_told(connected, odd_endpoint):
    """Why a server does not let the gateway in is told to admins."""

    async def refuse(handler: Odd, message: Any) -> bool:
        handler.set_status(401)
        return True

    url, _ = odd_endpoint(refuse)
    server = await connected(url=url)
    status = await server.until(lambda status: status.state == "restarting")
    assert "HTTP status 401" in status.error
    assert status.label == url.removesuffix("/mcp")


@pytest.mark.gen_test
async def test_mcp_http_nobody_there(connected):
    """A server that is not there yet is tried again."""
    server = await connected(url="http://127.0.0.1:1/mcp")
    status = await server.until(lambda status: status.restarts == 1)
    assert status.tools is None and status.error


@pytest.mark.gen_test
async def test_mcp_http_answers_are_bounded(connected, odd_endpoint, error_log):
    """An answer without an end is not read to its end; the next call is answered."""
    flooded = []

    async def flood(handler: Odd, message: Any) -> bool:
        if message.get("method") != "tools/call" or flooded:
            return False
        flooded.append(message)
        handler.set_header("Content-Type", "application/json")
        for _ in range(17):
            handler.write(b" " * (1 << 20))
            await handler.flush()
        return True

    url, _ = odd_endpoint(flood)
    server = await connected(url=url)
    with pytest.raises(ToolFailed, match="more than 16,777,216 bytes"):
        await server.call("t")
    assert await server.call("t") == "done"
    # The SDK's own, which a gateway's log leaves out.
    assert {record.name.split(".")[0] for record in error_log} <= {"mcp"}
    error_log.clear()
