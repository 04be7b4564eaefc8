"""Edwin inside an application that was there before it."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from edwin import Gateway, mount, routes
from edwin.testing.gateway import TOKEN, merged
from examples.legacy_host import CatchAllHandler, HomeHandler, host_application
from tests.conftest import Client, raw_chat
from tests.process import environment

ROOT = Path(__file__).parent.parent
AUTH = {"Authorization": f"Bearer {TOKEN}"}
CONFIG = {
    "gateway": {
        "auth": {"token": TOKEN},
        "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
    },
    "agents": {"defaults": {"model": "up/scripted", "instructions": ""}},
}


class Host:
    """A host application with Edwin in it; stands in for a gateway's own server."""

    def __init__(self, app, gateway: Gateway, upstream, prefix: str) -> None:
        bound, port = bind_unused_port()
        self.server = HTTPServer(app)
        self.server.add_sockets([bound])
        self.gateway = gateway
        self.upstream = upstream
        self.root = f"http://127.0.0.1:{port}"
        self.url = self.root + prefix


@pytest.fixture
def host(io_loop, tmp_path, upstream):
    """Return ``host(kind)``: a host with Edwin mounted, or among its own routes."""
    hosts: list[Host] = []

    async def make(kind: str = "mount", prefix: str = "/ai", start: bool = True):
        providers = {"up": {"api": "openai-completions", "baseUrl": upstream.url}}
        own = {
            "gateway": {"stateDir": str(tmp_path / f"state-{len(hosts)}")},
            "models": {"providers": providers},
        }
        gateway = Gateway(merged(CONFIG, own))
        if kind == "mount":
            app = host_application()
            mount(app, gateway, prefix)
        else:
            from tornado import web

            rules = [(r"/", HomeHandler), *routes(gateway, prefix)]
            app = web.Application([*rules, (r".*", CatchAllHandler)], xsrf_cookies=True)
        if start:
            await gateway.start()
        hosts.append(Host(app, gateway, upstream, prefix))
        return hosts[-1]

    yield make
    for made in hosts:
        made.server.stop()
        io_loop.run_sync(made.gateway.stop)
        io_loop.run_sync(made.server.close_all_connections)


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", ["mount", "routes"])
async def test_embedding_whole_and_streamed(host, kind):
    """Both kinds of answers come through the host, past its XSRF cookies."""
    made = await host(kind)
    made.upstream.reply("whole answer")
    made.upstream.reply("answer in pieces")
    client = Client(made)
    assert (await client.chat(user="ann")).text == "whole answer"
    streamed = await client.chat("more", user="ann", stream=True)
    assert streamed.text == "answer in pieces" and streamed.events[-1] == "[DONE]"
    assert len(made.upstream.requests[-1].body["messages"]) == 3


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", ["mount", "routes"])
async def test_embedding_websocket(host, kind):
    """The WebSocket shakes hands below the prefix."""
    made = await host(kind)
    frame = {"type": "req", "id": "1", "method": "connect", "params": {}}
    async with (
        aiohttp.ClientSession(headers=AUTH) as session,
        session.ws_connect(made.url + "/ws") as ws,
    ):
        await ws.send_json(frame)
        assert (await ws.receive_json())["payload"]["principal"] == "owner"


@pytest.mark.gen_test
async def test_embedding_host_is_untouched(host):
    """The host's pages, its XSRF protection and its catch-all stay as they were."""
    made = await host()
    async with aiohttp.ClientSession() as session:
        for method, path, status, text in [
            ("GET", "/", 200, "the host's own page"),
            ("GET", "/nowhere", 404, "nothing here"),
            ("GET", "/v1/models", 404, "nothing here"),
            ("POST", "/", 403, ""),
        ]:
            async with session.request(method, made.root + path) as response:
                assert response.status == status
                assert text in await response.text()


@pytest.mark.gen_test
async def test_embedding_unknown_urls(host):
    """Below a mount an unknown URL is JSON; among routes it is the host's."""
    mounted = await host("mount")
    response = await Client(mounted).request("/nowhere")
    assert (response.code, b'"unknown_url"' in response.body) == (404, True)
    among = await host("routes")
    response = await Client(among).request("/nowhere")
    assert (response.code, b"nothing here" in response.body) == (404, True)


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", ["mount", "routes"])
async def test_embedding_errors_and_auth(host, kind):
    """Strangers, mistakes and oversize are answered as in Edwin's own server."""
    client = Client(await host(kind))
    assert (await client.request("/v1/models", token="wrong")).code == 401
    assert (await client.chat(messages=[])).error["code"] == "empty_array"
    big = b"x" * (20 * 1024 * 1024 + 1)
    response = await client.request("/v1/chat/completions", big)
    assert (response.code, b"body_too_large" in response.body) == (413, True)


@pytest.mark.gen_test
async def test_embedding_client_leaves(host, connect):
    """A client that leaves ends its run at the provider here too."""
    made = await host(prefix="")
    made.upstream.hang()
    answer = await connect(made, raw_chat(stream=True))
    request = await made.upstream.arrival()
    await answer.close()
    async with asyncio.timeout(1):
        await request.closed.wait()


@pytest.mark.gen_test
async def test_embedding_two_gateways_in_one_process(host):
    """Two gateways in one process know nothing of each other."""
    one, two = await host(), await host()
    assert one.gateway is not two.gateway
    await Client(one).chat("one", user="ann")
    await Client(two).chat("two", user="ann")
    sent = [m["content"] for m in two.upstream.requests[-1].body["messages"]]
    assert sent == ["two"]


@pytest.mark.gen_test
async def test_embedding_before_start_and_after_stop(host):
    """Outside its life the gateway says so, and the host goes on."""
    made = await host(start=False)
    client = Client(made)
    for expected in ("starting", "stopped"):
        ready = await client.request("/readyz")
        assert (ready.code, expected.encode() in ready.body) == (503, True)
        answer = await client.chat()
        assert (answer.status, answer.error["code"]) == (503, "gateway_stopping")
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with aiohttp.ClientSession(headers=AUTH) as session:
                await session.ws_connect(made.url + "/ws")
        assert caught.value.status == 503
        if expected == "starting":
            await made.gateway.start()
            assert (await client.chat()).status == 200
            await made.gateway.stop()
    async with aiohttp.ClientSession() as session, session.get(made.root) as response:
        assert response.status == 200


@pytest.mark.gen_test
async def test_embedding_example_runs(tmp_path):
    """The example is a host that answers, and ends when it is told to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, ROOT / "examples" / "legacy_host.py", str(port)),
        env=environment(EDWIN_GATEWAY_TOKEN=TOKEN, EDWIN_STATE_DIR=str(tmp_path / "s")),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()

        class Served:
            url = f"http://127.0.0.1:{port}/ai"

        answer = await Client(Served()).chat("echo this")
        assert answer.text == "echo this"
    finally:
        process.send_signal(2)
        assert await process.wait() == 0


@pytest.mark.gen_test
async def test_embedding_documented_test_runs(tmp_path):
    """The last example of docs/embedding.md runs as it stands."""
    text = (ROOT / "docs" / "embedding.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.S)[-1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        cwd=tmp_path,
        env=environment(HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert re.fullmatch(rf"http://127.0.0.1:\d+ {TOKEN}\n", out.decode())
