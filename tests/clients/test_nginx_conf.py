"""conf/nginx.conf as it stands, in an nginx that runs."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import subprocess
from asyncio.subprocess import DEVNULL
from pathlib import Path

import aiohttp
import pytest

from edwin.testing.gateway import TOKEN
from tests.clients.conftest import PATIENCE_S, free_port, must_have
from tests.conftest import chat
from tests.process import ROOT

NAME = "edwin.example.com"
AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    include {folder}/edwin.conf;
}}
"""
PROMPT_S = 2


def replaced(text: str, **values: str) -> str:
    """Return *text* with what differs from machine to machine."""
    for old, new in values.items():
        old = {"address": "127.0.0.1:18789", "listen": "listen 443 ssl;"}.get(old, old)
        assert old in text, f"conf/nginx.conf no longer says {old}"
        text = text.replace(old, new)
    return text


def certificate(folder: Path) -> None:
    """Make a key and a certificate of its own for :data:`NAME`."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"),
            *("-keyout", "privkey.pem", "-out", "fullchain.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )


class Proxy:
    """An nginx with the shipped file.

    Attributes:
        origin: What a browser on a page of it says.

    """

    def __init__(self, port: int, folder: Path) -> None:
        self.origin = f"https://{NAME}:{port}"
        self._port = port
        self._trusted = ssl.create_default_context(cafile=folder / "fullchain.pem")

    def session(self) -> aiohttp.ClientSession:
        """Return a session that finds the name here and trusts the certificate."""
        connector = aiohttp.TCPConnector(ssl=self._trusted, resolver=Here())
        return aiohttp.ClientSession(
            self.origin,
            connector=connector,
            headers={"Authorization": f"Bearer {TOKEN}"},
        )


class Here(aiohttp.abc.AbstractResolver):
    """Finds every name on 127.0.0.1."""

    async def resolve(self, host, port=0, family=0):
        """Return the one address."""
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": port,
                "family": 2,
                "proto": 0,
                "flags": 0,
            }
        ]

    async def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def start_proxy(io_loop, tmp_path):
    """Start nginx before a gateway: ``await start_proxy(served.url)``."""
    program = must_have(ROOT / ".clients" / "nginx", "nginx", "run tools/clients")
    started = []

    async def attempt(url: str, port: int) -> bool:
        folder = tmp_path / "nginx"
        text = replaced(
            (ROOT / "conf" / "nginx.conf").read_text("utf-8"),
            address=url.removeprefix("http://"),
            listen=f"listen 127.0.0.1:{port} ssl;",
        ).replace("/etc/ssl/edwin/", f"{folder}/")
        (folder / "edwin.conf").write_text(text, "utf-8")
        (folder / "nginx.conf").write_text(AROUND.format(folder=folder), "utf-8")
        process = await asyncio.create_subprocess_exec(
            *(program, "-p", folder, "-c", folder / "nginx.conf"),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        started.append(process)
        async with asyncio.timeout(PATIENCE_S):
            while not ((folder / "pid").exists() and (folder / "pid").read_text()):
                if process.returncode is not None:
                    return False
                await asyncio.sleep(0.01)
        return True

    async def start(url: str) -> Proxy:
        (tmp_path / "nginx").mkdir()
        certificate(tmp_path / "nginx")
        # Between the choice and the listening somebody else may take the port.
        for _ in range(5):
            port = free_port()
            if await attempt(url, port):
                return Proxy(port, tmp_path / "nginx")
        log = (tmp_path / "nginx" / "error.log").read_text("utf-8")
        pytest.fail(f"nginx does not start:\n{log}")

    yield start
    for process in started:
        if process.returncode is None:
            process.terminate()
        io_loop.run_sync(process.wait)


@pytest.mark.gen_test
async def test_nginx_conf_stream_arrives_as_it_is_made(start_proxy, make_gateway):
    """Over TLS too, each piece of an answer passes before the next is made."""
    served = await make_gateway({"gateway": {"http": {"headDelayMs": 20}}})
    proxy = await start_proxy(served.url)
    served.upstream.hang(after=["one"], then=[" two"])
    received = b""
    async with (
        proxy.session() as session,
        session.post("/v1/chat/completions", json=chat(stream=True)) as response,
    ):
        async with asyncio.timeout(PATIENCE_S):
            while b'"content":"one"' not in received:
                received += await response.content.readany()
            assert b"two" not in received
            served.upstream.release()
            received += await response.content.read()
    assert received.endswith(b"data: [DONE]\n\n")


@pytest.mark.gen_test
async def test_nginx_conf_client_leaves(start_proxy, served):
    """Whoever leaves nginx ends the call to the provider."""
    proxy = await start_proxy(served.url)
    served.upstream.hang(after=["some"])
    async with (
        proxy.session() as session,
        session.post("/v1/chat/completions", json=chat(stream=True)) as response,
    ):
        await response.content.readany()
        # As a process that ends does; a TLS client may take its time to say goodbye.
        response.connection.transport.abort()
        async with asyncio.timeout(PROMPT_S):
            await served.upstream.requests[0].closed.wait()


@pytest.mark.gen_test
async def test_nginx_conf_socket(start_proxy, served):
    """A page on the proxy's own name opens the WebSocket; a foreign one does not."""
    proxy = await start_proxy(served.url)
    connect = {"type": "req", "id": "1", "method": "connect", "params": {}}
    async with proxy.session() as session:
        async with session.ws_connect("/ws", origin=proxy.origin) as socket:
            await socket.send_json(connect)
            assert (await socket.receive_json())["payload"]["principal"] == "owner"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect("/ws", origin="https://elsewhere.example")
    assert caught.value.status == 403


@pytest.mark.gen_test
async def test_nginx_conf_own_page_calls(start_proxy, served):
    """A page on the proxy's own name may call over HTTP as well."""
    proxy = await start_proxy(served.url)
    async with (
        proxy.session() as session,
        session.post(
            "/v1/chat/completions", json=chat(), headers={"Origin": proxy.origin}
        ) as response,
    ):
        assert response.status == 200


@pytest.mark.gen_test
async def test_nginx_conf_large_bodies_are_the_gateways_business(
    start_proxy, make_gateway
):
    """A body that is too long is refused in the gateway's envelope."""
    served = await make_gateway({"gateway": {"http": {"maxBodyBytes": 4 << 20}}})
    proxy = await start_proxy(served.url)
    body = io.BytesIO(json.dumps(chat("x" * (5 << 20))).encode())
    async with (
        proxy.session() as session,
        session.post("/v1/chat/completions", data=body) as response,
    ):
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "body_too_large"


@pytest.mark.gen_test
async def test_nginx_conf_clients_are_told_apart(start_proxy, make_gateway):
    """One client that guesses shuts out its own address, not the proxy's."""
    served = await make_gateway({"gateway": {"trustedProxies": ["127.0.0.1/32"]}})
    proxy = await start_proxy(served.url)

    async def guess(token: str, address: str) -> int:
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
        async with (
            proxy.session() as session,
            session.get("/v1/models", headers=headers) as response,
        ):
            return response.status

    # The client itself is on a trusted address here, so that its word counts: it
    # stands for a proxy before nginx.
    for _ in range(10):
        assert await guess("wrong", "198.51.100.7") == 401
    assert await guess("wrong", "198.51.100.7") == 429
    assert await guess("wrong", "198.51.100.8") == 401


@pytest.mark.gen_test
async def test_nginx_conf_nobody_names_himself(start_proxy, make_gateway):
    """A user's name that a client sends stops at the proxy."""
    served = await make_gateway(
        {
            "gateway": {
                "trustedProxies": ["127.0.0.1"],
                "auth": {"mode": "trusted-proxy"},
            }
        }
    )
    proxy = await start_proxy(served.url)
    headers = {"X-Forwarded-User": "ada"}
    async with proxy.session() as session:
        # It counts where it comes from the proxy's address, and nginx takes it away.
        async with session.get(f"{served.url}/v1/models", headers=headers) as response:
            assert response.status == 200
        async with session.get("/v1/models", headers=headers) as response:
            assert response.status == 401
