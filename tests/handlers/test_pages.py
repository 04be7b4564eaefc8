"""Web pages of other origins, and what every answer tells a browser."""

from __future__ import annotations

import aiohttp
import pytest

from edwin.app import routes
from edwin.config import from_document
from edwin.errors import ConfigError
from edwin.testing.gateway import TOKEN
from tests.conftest import Client, chat, raw_chat

APP = "https://app.example.org"
EVIL = "https://evil.example"
CORS = {"gateway": {"http": {"cors": {"allowedOrigins": [APP]}}}}
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-edwin-agent-id",
}
AUTH = {"Authorization": f"Bearer {TOKEN}"}
FOREIGN = [EVIL, "null", "", "nonsense", "https://app.example.org.evil.example", "*"]


@pytest.fixture
def pages(io_loop, make_gateway) -> Client:
    """Return a client of a gateway that one page may use."""
    return Client(io_loop.run_sync(lambda: make_gateway(CORS)))


def allows(response) -> bool:
    return "Access-Control-Allow-Origin" in response.headers


def names(response, header: str) -> set[str]:
    return {name.strip().lower() for name in response.headers[header].split(",")}


@pytest.mark.gen_test
@pytest.mark.parametrize("origin", FOREIGN)
async def test_pages_foreign_ones_are_refused(client, origin):
    """A foreign page gets 403 on every route, though its token is right."""
    paths = {path.replace("(.+)", "x").replace("\\", "") for path, *_ in routes(None)}
    for path in sorted({*paths, "/no/such/path"}):
        for method in ("GET", "POST", "OPTIONS"):
            response = await client.request(
                path, headers={"Origin": origin}, method=method
            )
            assert response.code == 403, (method, path)
            assert b'"code":"forbidden"' in response.body
            assert not allows(response)
    assert not client.served.upstream.requests


@pytest.mark.gen_test
async def test_pages_foreign_ones_are_refused_before_their_secret(client):
    """A page cannot get its visitor's address shut out by guessing secrets."""
    for _ in range(12):
        response = await client.request(
            "/v1/models", headers={"Origin": EVIL}, token="wrong"
        )
        assert response.code == 403
    assert (await client.request("/v1/models")).code == 200


@pytest.mark.gen_test
async def test_pages_foreign_body_is_not_read(pages):
    """Of a foreign page's request nothing reaches an agent, however it is sent."""
    headers = {"Origin": EVIL, "Content-Type": "text/plain"}
    answer = await pages.chat("Hello", headers=headers)
    assert answer.status == 403
    assert not pages.served.upstream.requests


@pytest.mark.gen_test
async def test_pages_own_and_none_pass(client):
    """Requests without Origin, or from the gateway's own pages, need nothing more."""
    own = client.served.url
    for headers in ({}, {"Origin": own}, {"Origin": own.replace("http:", "https:")}):
        response = await client.request("/v1/models", headers=headers)
        assert response.code == 200
        assert not allows(response) and "Vary" not in response.headers


@pytest.mark.gen_test
@pytest.mark.parametrize("stream", [False, True])
async def test_pages_allowed_one_reads_the_answer(pages, stream):
    """A page of ``allowedOrigins`` is answered, and may read answer and headers."""
    answer = await pages.chat("Hello", headers={"Origin": APP}, stream=stream)
    assert answer.status == 200 and answer.text == "Hello"
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert answer.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    exposed = names(answer, "Access-Control-Expose-Headers")
    ours = {name.lower() for name in answer.headers if name.lower().startswith("x-")}
    assert ours - {"x-content-type-options", "x-accel-buffering"} <= exposed
    assert {"retry-after", "x-ratelimit-remaining-tokens", "location"} <= exposed


@pytest.mark.gen_test
async def test_pages_allowed_one_reads_errors(pages):
    """It may read errors too, of its own making and of Tornado's."""
    for path, token, code in (
        ("/v1/models", "wrong", 401),
        ("/v1/models/nobody", TOKEN, 404),
        ("/nowhere", TOKEN, 404),
    ):
        response = await pages.request(path, headers={"Origin": APP}, token=token)
        assert response.code == code and response.headers["Vary"] == "Origin"
        assert response.headers["Access-Control-Allow-Origin"] == APP
    response = await pages.request("/healthz", headers={"Origin": APP}, method="PUT")
    assert response.code == 405 and allows(response)


@pytest.mark.gen_test
async def test_pages_answers_vary(pages):
    """Where some page is allowed, every answer says that it depends on the page."""
    for headers in ({}, {"Origin": EVIL}):
        response = await pages.request("/healthz", headers=headers)
        assert response.headers["Vary"] == "Origin" and not allows(response)


@pytest.mark.gen_test
async def test_pages_allowed_one_still_needs_the_secret(pages):
    """An allowed page is authenticated like everybody."""
    answer = await pages.request(
        "/v1/chat/completions", chat(), headers={"Origin": APP}, token=None
    )
    assert answer.code == 401


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/runs/x/events", "/ws"])
async def test_pages_preflight(pages, path):
    """A preflight is answered without a secret: what the page may send, for an hour."""
    response = await pages.request(
        path, headers={"Origin": APP, **PREFLIGHT}, method="OPTIONS", token=None
    )
    assert (response.code, response.body) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert response.headers["Vary"] == "Origin"
    assert response.headers["Access-Control-Max-Age"] == "3600"
    methods = names(response, "Access-Control-Allow-Methods")
    assert methods == {"get", "head", "post", "delete"}
    sent = names(response, "Access-Control-Allow-Headers")
    assert {"authorization", "content-type", "idempotency-key", "*"} <= sent
    assert {"x-edwin-agent-id", "x-edwin-session-key", "x-edwin-timeout-ms"} <= sent


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("origin", "asked", "status"),
    [
        (EVIL, PREFLIGHT, 403),
        ("null", PREFLIGHT, 403),
        (APP, {}, 401),
        (APP, {**PREFLIGHT, "Content-Length": "2"}, 401),
        (None, PREFLIGHT, 401),
    ],
)
async def test_pages_what_is_no_preflight(pages, connect, origin, asked, status):
    """A foreign page's is refused; any other OPTIONS is a request like all others."""
    headers = {**asked, **({} if origin is None else {"Origin": origin})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = "{}" if "Content-Length" in headers else ""
    data = f"OPTIONS /v1/models HTTP/1.1\r\nHost: x\r\n{lines}\r\n{body}"
    answer = await connect(pages.served, data.encode())
    received = await answer.until(b'"code"')
    assert int(received.split()[1]) == status
    assert b"Access-Control-Allow-Methods" not in received


@pytest.mark.gen_test
async def test_pages_preflight_keeps_the_connection(pages, connect):
    """The request comes over the connection that its preflight came over."""
    lines = "".join(f"{k}: {v}\r\n" for k, v in {"Origin": APP, **PREFLIGHT}.items())
    head = f"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{lines}\r\n"
    answer = await connect(pages.served, head.encode())
    assert (await answer.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    answer.writer.write(raw_chat(headers=f"Origin: {APP}\r\n"))
    assert b"200 OK" in await answer.until(b'"usage"')


@pytest.mark.gen_test
@pytest.mark.parametrize("origin", [APP, EVIL, "null"])
async def test_pages_websocket(pages, origin):
    """The same list says which pages may open the WebSocket."""
    url = pages.served.url + "/ws"
    async with aiohttp.ClientSession(headers=AUTH) as session:
        if origin == APP:
            async with session.ws_connect(url, origin=origin) as socket:
                assert not socket.closed
            return
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(url, origin=origin)
    assert caught.value.status == 403


@pytest.mark.gen_test
async def test_pages_allowed_one_without_authentication(make_gateway):
    """In mode ``none`` the pages that are named may come too, and no others."""
    config = {"gateway": {**CORS["gateway"], "auth": {"mode": "none"}}}
    client = Client(await make_gateway(config))
    for origin, code in ((APP, 200), (EVIL, 403)):
        headers = {"Origin": origin}
        response = await client.request("/v1/models", headers=headers, token=None)
        assert response.code == code


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "https://*.example.org", "https://app.example.org/", "null", ""),
        *("app.example.org", "https://a.example https://b.example", "https://a@b"),
        *("https://app.example.org/path", "https://äpp.example", "https://a:port"),
    ],
)
def test_pages_origins_are_exact(origin):
    """There are no patterns: what is no origin, ``*`` first of all, is an error."""
    with pytest.raises(ConfigError, match="an origin such as"):
        from_document({"gateway": {"http": {"cors": {"allowedOrigins": [origin]}}}})


@pytest.mark.parametrize(
    ("origin", "kept"),
    [
        ("https://App.Example.org:443", "https://app.example.org"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_pages_origins_are_kept_as_browsers_write_them(origin, kept):
    """Capital letters and a port that goes without saying do not matter."""
    document = {"gateway": {"http": {"cors": {"allowedOrigins": [origin]}}}}
    cors = from_document(document).gateway.http.cors
    assert cors.allowed_origins == frozenset({kept})


@pytest.mark.gen_test
async def test_pages_every_answer_is_safe_to_show(client):
    """No answer is kept, guessed at, sent on as a referrer, or shown by other pages."""
    for path, document in (
        *(
            ("/healthz", None),
            ("/readyz", None),
            ("/metrics", None),
            ("/nowhere", None),
        ),
        *(("/v1/models", None), ("/v1/chat/completions", chat())),
        *(("/v1/chat/completions", {}), ("/v1/chat/completions", chat(stream=True))),
        *(("/ws", None), ("/v1/runs", None), ("/v1/sessions", None)),
    ):
        headers = (await client.request(path, document)).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        streams = headers["Content-Type"].startswith("text/event-stream")
        assert headers["Cache-Control"] == ("no-cache" if streams else "no-store")
        assert "Server" not in headers
