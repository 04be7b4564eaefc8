"""HTTPS and wss on the gateway's own port, over real sockets."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
import yaml

from edwin.config import from_document
from edwin.errors import ConfigError
from edwin.state import holder
from edwin.testing.gateway import TOKEN, LocalGateway
from edwin.tls import own_context, server_context
from tests.conftest import RawAnswer, Response, chat, raw_chat
from tests.process import edwin

AUTH = {"Authorization": f"Bearer {TOKEN}"}
PIECE = "x" * 100_000


class Certificate(NamedTuple):
    """A certificate for localhost and 127.0.0.1, and its key."""

    cert: Path
    key: Path

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client trusts that knows this certificate."""
        return ssl.create_default_context(cafile=self.cert)


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="session")
def make_certificate(tmp_path_factory) -> Callable[..., Certificate]:
    """Make certificates that issue themselves."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, names: str = "DNS:localhost,IP:127.0.0.1") -> Certificate:
        made = Certificate(folder / f"{name}.pem", folder / f"{name}-key.pem")
        openssl(
            *("req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName={names}"),
            *("-keyout", str(made.key), "-out", str(made.cert)),
        )
        return made

    return make


@pytest.fixture(scope="session")
def certificate(make_certificate) -> Certificate:
    return make_certificate("gateway")


@pytest.fixture(scope="session")
def another(make_certificate) -> Certificate:
    return make_certificate("another")


def tls(certificate: Certificate, **http) -> dict:
    """Return the configuration of a gateway that serves with *certificate*."""
    files = {"certFile": str(certificate.cert), "keyFile": str(certificate.key)}
    return {"gateway": {"tls": files, "http": http}}


@pytest.fixture
def secure(io_loop, make_gateway, certificate) -> LocalGateway:
    """Return a gateway that serves HTTPS and is quick to give up on silence."""
    config = tls(certificate, stallSeconds=0.5, idleSeconds=0.5)
    return io_loop.run_sync(lambda: make_gateway(config))


@pytest.fixture
def session(io_loop, certificate):
    """Return an HTTP session that trusts the certificate, and checks the name in it."""

    async def make() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=certificate.trust)
        return aiohttp.ClientSession(connector=connector, headers=AUTH)

    made = io_loop.run_sync(make)
    yield made
    io_loop.run_sync(made.close)


@pytest.fixture
def connect(io_loop, secure, certificate):
    """Send bytes over TLS: ``answer = await connect(data)``."""
    made: list[RawAnswer] = []

    async def send(data: bytes = b"", **options) -> RawAnswer:
        port = int(secure.url.rsplit(":", 1)[1])
        options.setdefault("ssl", certificate.trust)
        answer = RawAnswer(*await asyncio.open_connection("127.0.0.1", port, **options))
        made.append(answer)
        answer.writer.write(data)
        await answer.writer.drain()
        return answer

    yield send
    for answer in made:
        # An end that TLS would say goodbye at may have no other side any more.
        answer.writer.transport.abort()


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_tls_answers(secure, session, stream):
    """With a certificate everything is answered over HTTPS, whole and streamed."""
    assert secure.url.startswith("https://")
    url = f"{secure.url}/v1/chat/completions"
    async with session.post(url, json=chat("Hello there", stream=stream)) as response:
        answer = await Response.read(response)
    assert answer.code == 200 and not answer.cut
    assert answer.body.endswith(b"data: [DONE]\n\n") is stream
    assert b"there" in answer.body


@pytest.mark.gen_test
async def test_tls_long_answers(secure, session):
    """An answer of many records arrives whole and in order."""
    pieces = ["".join(f"{n:07d}\n" for n in range(i, i + 2500)) for i in range(100)]
    secure.upstream.reply(deltas=pieces)
    url = f"{secure.url}/v1/chat/completions"
    async with session.post(url, json=chat()) as response:
        answer = json.loads((await Response.read(response)).body)
    assert answer["choices"][0]["message"]["content"] == "".join(pieces)


@pytest.mark.gen_test
async def test_tls_websocket(secure, session):
    """The WebSocket is wss, and a page of the gateway's own opens it."""
    url = secure.url + "/ws"
    async with session.ws_connect(url, origin=secure.url) as socket:
        await socket.send_json(
            {"type": "req", "id": "1", "method": "connect", "params": {}}
        )
        answer = await socket.receive_json()
    assert answer["ok"] is True and answer["payload"]["principal"] == "owner"


@pytest.mark.gen_test
async def test_tls_pages_come_by_https(secure, session):
    """A page that came by plain HTTP is foreign to a gateway with a certificate."""
    origin = {"Origin": secure.url.replace("https:", "http:")}
    async with session.get(f"{secure.url}/v1/models", headers=origin) as response:
        assert response.status == 403


@pytest.mark.gen_test
async def test_tls_refuses_old_versions(connect, certificate):
    """TLS 1.1 and before are refused; 1.2 is taken."""
    for version, taken in (("TLSv1_1", False), ("TLSv1_2", True)):
        context = certificate.trust
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = getattr(ssl.TLSVersion, version)
        if taken:
            answer = await connect(raw_chat(), ssl=context)
            assert b"200 OK" in await answer.until(b'"usage"')
        else:
            with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
                await connect(ssl=context)


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("left", "polite"),
    [(b"", True), (b"", False), (b"\r\nGET / HTTP/1.1\r\n", False)],
)
async def test_tls_client_leaves(secure, connect, stream, left, polite):
    """Who leaves stops the provider at once, whatever the connection holds unread.

    So does who says goodbye in TLS and then waits for an answer to it.
    """
    secure.upstream.hang(after=["one"] if stream else None)
    answer = await connect(raw_chat(stream=stream) + left)
    request = await secure.upstream.arrival()
    if stream:
        await answer.until(b"one")
    await asyncio.sleep(0.05)
    if polite:
        answer.writer.close()
    else:
        answer.writer.transport.abort()
    async with asyncio.timeout(2):
        await request.closed.wait()


@pytest.mark.gen_test
async def test_tls_slow_client_is_cut(secure, connect):
    """Who takes nothing for ``stallSeconds`` is cut, who reads is not."""
    secure.upstream.reply(deltas=[PIECE] * 150, gap_s=0.02)
    stalled = await connect(raw_chat(stream=True), limit=4096)
    stalled.writer.transport.pause_reading()
    request = await secure.upstream.arrival()
    began = time.monotonic()
    async with asyncio.timeout(15):
        await request.closed.wait()
    assert time.monotonic() - began >= 0.5
    secure.upstream.reply(deltas=[PIECE] * 50)
    reading = await connect(raw_chat(stream=True))
    assert b"[DONE]" in await reading.until(b"[DONE]")


@pytest.mark.gen_test
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_tls_broken_answer_has_no_clean_end(secure, connect, version):
    """An answer that breaks off does not pass as a whole one."""
    secure.upstream.reply(deltas=["one", "two"], cut=True)
    answer = await connect(raw_chat(stream=True, version=version))
    try:
        received = await answer.to_end()
    except ConnectionResetError:
        # HTTP/1.0 has no other way to say so.
        assert version == "1.0"
        received = answer.received
    else:
        assert version == "1.1"
        assert b'"code":"provider_stream_error"' in received
    assert not received.endswith(b"0\r\n\r\n") and b"[DONE]" not in received


@pytest.mark.gen_test
@pytest.mark.parametrize("data", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_tls_who_speaks_no_tls_is_closed(secure, session, connect, data):
    """Plain HTTP, or silence, costs nobody but who sent it."""
    answer = await connect(data, ssl=None)
    async with session.get(f"{secure.url}/healthz") as response:
        assert response.status == 200
    async with asyncio.timeout(5):
        with suppress(ConnectionResetError):
            await answer.to_end()
    assert b"HTTP/" not in answer.received


@pytest.mark.gen_test
async def test_tls_reload(make_gateway, certificate, another, tmp_path):
    """A new certificate is for new connections; those that are open go on."""
    files = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    copy(certificate, files)
    served = await make_gateway(tls(files))
    url = f"{served.url}/v1/models"
    async with aiohttp.ClientSession(headers=AUTH) as session:
        assert await status(session, url, certificate) == 200
        copy(another, files)
        await served.gateway.reload(served.gateway.config)
        # Over the connection that is open, whose certificate was the first.
        assert await status(session, url, certificate) == 200
        assert await status(session, url, another) == 200
    async with aiohttp.ClientSession(headers=AUTH) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status(session, url, certificate)
        shutil.copy(certificate.cert, files.cert)
        with pytest.raises(ConfigError, match=r"key\.pem is not the key"):
            await served.gateway.reload(served.gateway.config)
        assert await status(session, url, another) == 200


def copy(source: Certificate, target: Certificate) -> None:
    for one, other in zip(source, target, strict=True):
        shutil.copy(one, other)


async def status(session, url: str, trusted: Certificate) -> int:
    async with session.get(url, ssl=trust(trusted)) as response:
        await response.read()
        return response.status


@cache
def trust(certificate: Certificate) -> ssl.SSLContext:
    """Return one context for each certificate: connections are kept by it."""
    return certificate.trust


def broken(folder: Path, certificate: Certificate, another: Certificate):
    """Yield certificate, key, and what is said of them."""
    nothing, words = folder / "nothing.pem", folder / "words.pem"
    words.write_text("no PEM")
    locked = folder / "locked.pem"
    openssl(
        *("ec", "-aes128", "-passout", "pass:secret"),
        *("-in", str(certificate.key), "-out", str(locked)),
    )
    missing = "cannot be read (no such file or directory)"
    yield nothing, certificate.key, f"certFile: {nothing} {missing}"
    yield certificate.cert, nothing, f"keyFile: {nothing} {missing}"
    yield folder, certificate.key, f"certFile: {folder} cannot be read"
    yield words, certificate.key, f"certFile: {words} holds no certificate"
    yield certificate.key, certificate.key, f"{certificate.key} holds no certificate"
    yield certificate.cert, words, f"keyFile: {words} holds no private key"
    yield certificate.cert, locked, f"keyFile: {locked} holds no private key in PEM"
    yield certificate.cert, another.key, f"keyFile: {another.key} is not the key of"


def test_tls_says_which_file_is_wrong(tmp_path, certificate, another):
    """Files that cannot be used are named, with the key that names them."""
    for cert, key, said in broken(tmp_path, certificate, another):
        with pytest.raises(ConfigError) as caught:
            server_context(cert, key)
        assert caught.value.message.startswith("gateway.tls.")
        assert said in caught.value.message
        assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["certFile", "keyFile"])
def test_tls_a_certificate_goes_with_its_key(name):
    """One file without the other is an error, and so is one without a name."""
    other = {"certFile": "keyFile", "keyFile": "certFile"}[name]
    with pytest.raises(ConfigError, match=rf"gateway\.tls\.{other}: is missing"):
        from_document({"gateway": {"tls": {name: "a.pem"}}})
    with pytest.raises(ConfigError, match=rf"gateway\.tls\.{name}"):
        from_document({"gateway": {"tls": {name: "", other: "a.pem"}}})


def test_tls_files_are_looked_for_in_the_working_directory(tmp_path):
    """A relative path starts where the gateway does; ``~`` is HOME."""
    document = {"gateway": {"tls": {"certFile": "c.pem", "keyFile": "~/k.pem"}}}
    environ = {"HOME": "/home/ann"}
    config = from_document(document, environ=environ, cwd=tmp_path)
    assert config.gateway.tls.cert_file == tmp_path / "c.pem"
    assert config.gateway.tls.key_file == Path("/home/ann/k.pem")
    assert config.describe()["address"] == "https://127.0.0.1:18789"
    plain = from_document({})
    assert plain.gateway.tls is None
    assert plain.describe()["address"] == "http://127.0.0.1:18789"


def test_tls_a_wrong_file_stops_the_start(tmp_path, certificate):
    """A gateway whose certificate cannot be used exits with 2 and says why."""
    key = tmp_path / "none.pem"
    config = tls(Certificate(certificate.cert, key))
    config["gateway"] |= {"port": 0, "stateDir": "state"}
    (tmp_path / "edwin.yaml").write_text(yaml.safe_dump(config))
    result = edwin("gateway", "--config", "edwin.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert f"gateway.tls.keyFile: {key} cannot be read" in result.stderr


@pytest.mark.gen_test
async def test_tls_commands_reach_their_own_gateway(
    make_gateway, make_certificate, tmp_path
):
    """A command trusts the configuration's own certificate, for whatever name it is."""
    elsewhere = make_certificate("elsewhere", "DNS:edwin.example.org")
    state = tmp_path / "state"
    served = await make_gateway(tls(elsewhere), state_dir=state)
    assert holder(state).url == served.url
    result = await command(tmp_path, state, elsewhere, "runs", "list", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["data"] == []


@pytest.mark.gen_test
async def test_tls_commands_trust_no_other(
    make_gateway, certificate, another, tmp_path
):
    """Another's certificate is refused, and the token is not sent."""
    state = tmp_path / "state"
    await make_gateway(tls(certificate), state_dir=state)
    result = await command(tmp_path, state, another, "runs", "list")
    assert result.returncode == 1
    assert "cannot be reached" in result.stderr and "certificate" in result.stderr


@pytest.mark.gen_test
@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_commands_by_url(make_gateway, certificate, tmp_path, trusted):
    """With ``--url``, ``SSL_CERT_FILE`` says whose certificates are trusted."""
    served = await make_gateway(tls(certificate))
    variables = {"SSL_CERT_FILE": str(certificate.cert)} if trusted else {}
    url = served.url.replace("127.0.0.1", "localhost")
    words = ("runs", "list", "--url", url)
    result = await command(tmp_path, tmp_path, None, *words, **variables)
    assert result.returncode == (0 if trusted else 1), result.stderr


async def command(
    folder: Path, state: Path, certificate: Certificate | None, *words: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command beside the loop, with a configuration for *state*."""
    config = tls(certificate) if certificate else {"gateway": {}}
    config["gateway"] |= {"stateDir": str(state), "auth": {"token": TOKEN}}
    file = folder / "command.yaml"
    file.write_text(yaml.safe_dump(config))
    return await asyncio.to_thread(
        edwin, *words, cwd=folder, EDWIN_CONFIG=str(file), **env
    )


def test_tls_own_context_takes_the_first_certificate_alone(
    tmp_path, certificate, another
):
    """Of a chain only the gateway's own certificate is trusted, not its issuers'."""
    chain = tmp_path / "chain.pem"
    chain.write_text(certificate.cert.read_text() + another.cert.read_text())
    (subject,) = own_context(chain).get_ca_certs()
    assert ("commonName", "gateway") in [pair for (pair,) in subject["subject"]]
    with pytest.raises(ConfigError, match="holds no certificate"):
        own_context(certificate.key)
