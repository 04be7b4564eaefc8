"""HTTP as strangers send it: broken, slow, oversized, pipelined."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
import tornado

from edwin.testing.gateway import TOKEN
from tests.conftest import Client, chat, raw_chat

AUTH = f"Authorization: Bearer {TOKEN}\r\n"
POST = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
# Heads that a Tornado before 6.5 takes; Edwin warns at its start.
SINCE_6_5 = [
    "X-Bad: a\x00b\r\nContent-Length: 0\r\n",
    " folded: x\r\nContent-Length: 0\r\n",
][: 2 * (tornado.version_info >= (6, 5))]
SMALL = {"gateway": {"http": {"maxBodyBytes": 1024}}}


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1]) if received else 0


def error(received: bytes) -> dict:
    return json.loads(received.rsplit(b"\r\n\r\n", 1)[1])["error"]


def chunked(*pieces: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return framed + b"0\r\n\r\n"


@pytest.fixture
def send(client, connect):
    """Return ``await send(data)``: the answer's bytes, to its error or its end."""

    async def exchange(data: bytes | str, mark: bytes = b'"code"') -> bytes:
        raw = data.encode("latin-1") if isinstance(data, str) else data
        answer = await connect(client.served, raw)
        async with asyncio.timeout(5):
            return await answer.until(mark)

    return exchange


@pytest.mark.gen_test
async def test_hardening_chunked_body(client, connect):
    """A body in chunks is a body, wherever the chunks are cut."""
    body = json.dumps(chat("hello")).encode()
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
    head = POST + AUTH + "Transfer-Encoding: chunked\r\n\r\n"
    answer = await connect(client.served, head.encode() + chunked(*pieces))
    assert b"200 OK" in await answer.until(b'"usage"')


@pytest.mark.gen_test
async def test_hardening_expect_continue(client, connect):
    """Who asks for 100 Continue gets it, or the refusal at once, not both."""
    body = json.dumps(chat("hello")).encode()
    expect = f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await connect(client.served, (POST + AUTH + expect).encode())
    assert status(await answer.until(b"\r\n\r\n")) == 100
    answer.writer.write(body)
    assert b"200 OK" in await answer.until(b'"usage"')
    refused = await connect(client.served, (POST + expect).encode())
    received = await refused.to_end()
    assert status(received) == 401 and b"100" not in received.split(b"\r\n")[0]
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.gen_test
async def test_hardening_pipelining(client, connect):
    """Requests sent at once are answered one by one, each with its own answer."""
    one, two = raw_chat("first one"), raw_chat("second one", stream=True)
    answer = await connect(client.served, one + two + one)
    received = await answer.until(b"[DONE]")
    await answer.until(b"\r\n0\r\n\r\n")
    async with asyncio.timeout(5):
        while answer.received.count(b"first one") < 2:
            answer.received += await answer.reader.read(65536)
    assert received.index(b"first one") < received.index(b'"second"')


@pytest.mark.gen_test
@pytest.mark.parametrize("form", ["length", "chunks", "expect"])
async def test_hardening_body_too_large(make_gateway, connect, form):
    """A body over the limit is 413 in the envelope, however it is sent."""
    served = await make_gateway(SMALL)
    body = b"[" + b" " * 200_000
    head = POST + AUTH
    if form == "length":
        data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    elif form == "chunks":
        data = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
        data += chunked(*[body[i : i + 1000] for i in range(0, len(body), 1000)])
    else:
        expect = "Expect: 100-continue\r\n"
        data = f"{head}{expect}Content-Length: {len(body)}\r\n\r\n".encode()
    answer = await connect(served, data)
    async with asyncio.timeout(5):
        received = await answer.until(b"body_too_large")
    assert status(received) == 413
    assert received.count(b"HTTP/1.1") == 1
    assert (await Client(served).chat()).status == 200


@pytest.mark.gen_test
async def test_hardening_connection_after_a_refusal(make_gateway, connect):
    """A refused body is read away, and the connection takes the next request."""
    served = await make_gateway(SMALL)
    big = b"x" * 5000
    refused = f"{POST}{AUTH}Content-Length: {len(big)}\r\n\r\n".encode() + big
    strange = f"{POST}Content-Length: {len(big)}\r\n\r\n".encode() + big
    answer = await connect(served, refused + strange + raw_chat("after all"))
    received = await answer.until(b'"usage"')
    codes = [int(part.split(b" ")[1]) for part in received.split(b"HTTP/1.1")[1:]]
    assert codes == [413, 401, 200]
    assert b"after all" in received


@pytest.mark.gen_test
async def test_hardening_a_huge_refused_body_is_not_read_for_ever(client, connect):
    """Of a stranger's endless body no more than a little is read."""
    head = f"{POST}Content-Length: 10000000000\r\n\r\n"
    answer = await connect(client.served, head.encode())
    assert status(await answer.until(b"invalid_api_key")) == 401
    sent = 0
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(20):
            while True:
                answer.writer.write(b"x" * 65536)
                await answer.writer.drain()
                sent += 65536
    assert sent < 160 << 20


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("method", "path", "code", "allow"),
    [
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("PUT", "/v1/chat/completions", 405, "POST"),
        ("OPTIONS", "/v1/chat/completions", 405, "POST"),
        ("DELETE", "/v1/models", 405, "GET, HEAD"),
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("HEAD", "/healthz", 200, None),
        ("HEAD", "/v1/models", 200, None),
        ("HEAD", "/v1/chat/completions", 405, "POST"),
        ("BREW", "/healthz", 405, "GET, HEAD"),
    ],
)
async def test_hardening_methods(client, method, path, code, allow):
    """A method that a route does not have is 405 with those it has."""
    response = await client.request(path, method=method)
    assert response.code == code
    assert response.headers.get("Allow") == allow
    if method == "HEAD":
        assert response.body == b""
    elif code == 405:
        assert json.loads(response.body)["error"]["code"] == "method_not_allowed"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: abc\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1, 2\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "X-Bad\r\nContent-Length: 0\r\n",
        *SINCE_6_5,
    ],
)
@pytest.mark.parametrize("auth", ["", AUTH])
async def test_hardening_ambiguous_heads(client, connect, head, auth):
    """A head that two readers might read in two ways is refused, never guessed at."""
    smuggled = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    data = f"{POST}{auth}{head}\r\n0\r\n\r\n{smuggled}"
    answer = await connect(client.served, data.encode("latin-1"))
    answer.writer.write_eof()
    async with asyncio.timeout(5):
        received = await answer.to_end()
    assert status(received) in (0, 400, 401)
    # One request, one answer.
    assert received.count(b"HTTP/1.1") <= 1
    assert b"200 OK" not in received
    assert client.served.upstream.requests == []


@pytest.mark.gen_test
@pytest.mark.parametrize("host", ["[::1", "[", "a:b:c", "\xff"])
async def test_hardening_strange_hosts(make_gateway, connect, host):
    """A Host that is no host is refused, and never an error of ours."""
    served = await make_gateway({"gateway": {"auth": {"mode": "none"}}})
    head = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n"
    answer = await connect(served, head.encode("latin-1"))
    async with asyncio.timeout(5):
        received = await answer.until(b"\r\n\r\n")
    assert status(received) in (400, 403)


@pytest.mark.gen_test
async def test_hardening_non_ascii_headers(send):
    """A header that is not ASCII is text like any other, or named as wrong."""
    assert status(await send(f"{POST}Authorization: Bearer \xe9\xff\r\n\r\n")) == 401
    body = json.dumps(chat())
    head = f"{POST}{AUTH}x-edwin-agent-id: \xe9\r\nContent-Length: {len(body)}\r\n\r\n"
    received = await send(head + body, b"}}")
    assert (status(received), error(received)["param"]) == (400, "x-edwin-agent-id")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "path", ["/%", "/%ff", "/v1/models/%ff", "/v1/models/%00", "//", "/v1/../etc", "*"]
)
async def test_hardening_paths(send, path):
    """A path of any bytes is answered in the envelope."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{AUTH}\r\n"
    received = await send(request, b"}}")
    assert status(received) in (400, 404)
    assert error(received)["type"] == "invalid_request_error"


@pytest.mark.gen_test
@pytest.mark.parametrize("length", [70_000, 1_000_000])
async def test_hardening_long_heads(send, length):
    """A head over 64 KiB ends its connection."""
    request = f"GET /healthz HTTP/1.1\r\nX: {'a' * length}\r\n\r\n"
    try:
        received = await send(request)
    except ConnectionError:
        received = b""
    assert status(received) in (0, 400, 431)


@pytest.mark.gen_test
async def test_hardening_slow_senders(make_gateway, connect):
    """Who never finishes a head or a body is let go."""
    http = {"idleSeconds": 0.3, "bodySeconds": 0.3}
    served = await make_gateway({"gateway": {"http": http}})
    head = await connect(served, POST.encode())
    body = await connect(served, f"{POST}{AUTH}Content-Length: 1000\r\n\r\n{{".encode())
    idle = await connect(served, raw_chat())
    await idle.until(b'"usage"')
    async with asyncio.timeout(5):
        await head.to_end()
        await body.to_end()
        await idle.to_end()
    assert not served.upstream.requests[1:]


def stalled(served) -> socket.socket:
    """Return a connection whose client takes next to nothing."""
    port = int(served.url.rsplit(":", 1)[1])
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", port))
    return reader


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False])
async def test_hardening_stalled_reader(make_gateway, stream):
    """A client that reads nothing is cut, and its run ends."""
    served = await make_gateway({"gateway": {"http": {"stallSeconds": 0.5}}})
    served.upstream.reply(deltas=["x" * 100_000] * 200)
    with stalled(served) as reader:
        reader.sendall(raw_chat(stream=stream))
        await served.upstream.arrival()
        async with asyncio.timeout(20):
            while not served.gateway.answers:
                await asyncio.sleep(0.01)
            while served.gateway.answers:
                await asyncio.sleep(0.05)
    assert not served.gateway.engine.running


@pytest.mark.gen_test
async def test_hardening_stalled_reader_holds_nobody_up(make_gateway):
    """While one client stalls, the others are served."""
    served = await make_gateway()
    served.upstream.reply(deltas=["x" * 100_000] * 200)
    with stalled(served) as reader:
        reader.sendall(raw_chat(stream=True))
        await served.upstream.arrival()
        await asyncio.sleep(0.2)
        assert (await Client(served).chat("hello")).text == "hello"


@pytest.mark.gen_test
async def test_hardening_response_headers_cannot_be_split(client):
    """What a client sends and gets back in a header stays one header."""
    for key in ("a%0d%0aX:1", "agent:main:%0a"):
        answer = await client.chat(headers={"x-edwin-session-key": key})
        assert answer.headers["x-edwin-session-key"] == key


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("extra", [b"\r\n", b"GET /healthz HTTP/1.1\r\n\r\n", b"x"])
@pytest.mark.parametrize("later", [True, False])
async def test_hardening_client_leaves_bytes_unread(
    client, connect, stream, extra, later
):
    """A client that leaves is noticed, whatever it has sent that nobody has read."""
    upstream = client.served.upstream
    upstream.hang()
    request = raw_chat(stream=stream)
    answer = await connect(client.served, request if later else request + extra)
    await upstream.arrival()
    if later:
        answer.writer.write(extra)
        await asyncio.sleep(0.05)
    await answer.close()
    async with asyncio.timeout(2):
        await upstream.requests[0].closed.wait()


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/v1/chat/completions"])
async def test_hardening_refusals_keep_the_connection(client, connect, path):
    """A refused request without a body does not cost its client the connection."""
    refused = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    answer = await connect(client.served, refused + refused + raw_chat("at last"))
    received = await answer.until(b'"usage"')
    assert b"at last" in received and b"Connection: close" not in received


@pytest.mark.gen_test
@pytest.mark.parametrize(("size", "token"), [(5_000_000, "wrong"), (40_000_000, TOKEN)])
async def test_hardening_refusals_of_large_bodies_are_read(client, size, token):
    """Who sends megabytes in vain gets to read why, not a reset connection."""
    response = await client.request("/v1/chat/completions", b"x" * size, token=token)
    assert response.code == (413 if token == TOKEN else 401)
    assert json.loads(response.body)["error"]["code"]


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/ws", "/healthz", "/readyz", "/nowhere"])
async def test_hardening_unwanted_bodies_are_not_kept(client, path, io_loop):
    """A body that a route does not want is thrown away as it comes."""
    import tracemalloc

    tracemalloc.start()
    try:
        body = b"x" * 15_000_000
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        response = await client.request(path, body, method="POST")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.code in (400, 404, 405)
    assert json.loads(response.body)["error"]["type"] == "invalid_request_error"
    assert peak - before - len(body) < 8_000_000


@pytest.mark.gen_test
@pytest.mark.parametrize("origin", ["http://[", "nonsense", "null", "http://a:b"])
async def test_hardening_strange_origins(client, origin):
    """An Origin that is none is a foreign one."""
    headers = {
        "Origin": origin,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    response = await client.request("/ws", headers=headers)
    assert (response.code, b'"forbidden"' in response.body) == (403, True)
