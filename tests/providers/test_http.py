"""What every provider over HTTP has without doing anything for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from edwin.config import from_document
from edwin.errors import (
    EdwinError,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderUnavailable,
)
from edwin.providers.chunks import ErrorAnswer, MalformedAnswer
from edwin.providers.http import HttpProvider
from edwin.testing import Reply
from edwin.types import Delta, ModelRequest, TextDelta, TurnFinished
from tests.proxy import Proxy

REQUEST = ModelRequest("m", [{"role": "user", "content": "Hello"}], {})
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
HEAD = PLAIN + b"\r\n"


class AcmeDecoder:
    """Reads ``{"say": text}`` and ``{"end": reason}``, and ``{"bye": true}``."""

    def __init__(self) -> None:
        self.started = False
        self.done = False
        self.finish_reason: str | None = None
        self.seen: list[bytes] = []

    @property
    def complete(self) -> bool:
        return self.finish_reason is not None

    def feed(self, data: bytes) -> list[Delta]:
        self.seen.append(data)
        if data == b"[DONE]":
            return []
        document = orjson.loads(data)
        if "error" in document:
            raise ErrorAnswer(document["error"])
        self.finish_reason = document.get("end", self.finish_reason)
        self.done = "bye" in document
        if "say" not in document:
            return []
        self.started = True
        return [TextDelta(document["say"])]

    def finish(self) -> TurnFinished:
        if self.finish_reason == "nonsense":
            raise MalformedAnswer("no such reason")
        return TurnFinished(self.finish_reason or "")


class Acme(HttpProvider):
    """A provider with an API of its own."""

    def __init__(self, config, path: str = "/talk") -> None:
        headers = {"x-acme-key": config.api_key, "ACCEPT": "text/acme"}
        super().__init__(config, url=f"{config.base_url}{path}", headers=headers)
        self.decoders: list[AcmeDecoder] = []

    def _document(self, request: ModelRequest) -> Mapping[str, Any]:
        if request.params:
            raise ProviderError("Acme has no parameters")
        return {"model": request.model, "ask": request.messages[-1]["content"]}

    def _decoder(self) -> AcmeDecoder:
        self.decoders.append(AcmeDecoder())
        return self.decoders[-1]


@pytest.fixture
def talk(io_loop, upstream):
    """Return a function that starts a provider of Acme's."""
    started = []

    async def make(**keys: object) -> Acme:
        keys = {"api": "x:Acme", "baseUrl": upstream.url, "apiKey": "sk-1"} | keys
        config = from_document({"models": {"providers": {"acme": keys}}})
        provider = Acme(config.providers["acme"])
        await provider.start()
        started.append(provider)
        return provider

    yield make
    for provider in started:
        io_loop.run_sync(provider.stop)


async def ask(provider, request: ModelRequest = REQUEST) -> list:
    """Return the events of one call."""
    async with aclosing(provider.stream(request)) as events:
        return [event async for event in events]


async def fail(provider, request: ModelRequest = REQUEST) -> EdwinError:
    """Return what a call fails with."""
    with pytest.raises(EdwinError) as caught:
        await ask(provider, request)
    return caught.value


def event(name: str = "piece", **document: object) -> bytes:
    """Return an event that has a name, as some APIs give theirs."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(document))


@pytest.mark.gen_test
async def test_http_a_provider_is_url_headers_document_and_decoder(talk, upstream):
    """What a provider says goes up; what comes down is read by its decoder, which
    gets the data of each event and not its name."""
    upstream.raw(HEAD, event(say="Hel") + event(say="lo"), event(end="stop"))
    provider = await talk(headers={"X-Team": "blue"})
    assert await ask(provider) == [
        TextDelta("Hel"),
        TextDelta("lo"),
        TurnFinished("stop"),
    ]
    (request,) = upstream.requests
    assert request.path == "/v1/talk"
    assert request.body == {"model": "m", "ask": "Hello"}
    assert request.headers["x-acme-key"] == "sk-1"
    assert request.headers["x-team"] == "blue"
    assert request.headers.get_list("Accept") == ["text/acme"]
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"].startswith("edwin-gateway/")


@pytest.mark.gen_test
async def test_http_configured_headers_win(talk, upstream):
    """A header of the configuration replaces the provider's and the usual ones."""
    upstream.raw(HEAD, event(end="stop"))
    headers = {"X-ACME-Key": "other", "user-agent": "mine", "accept": "*/*"}
    await ask(await talk(headers=headers))
    sent = upstream.requests[0].headers
    for name, value in headers.items():
        assert sent.get_list(name) == [value]


@pytest.mark.gen_test
async def test_http_traces_go_up_with_their_call(talk, upstream):
    """The trace context of a request is its call's alone."""
    provider = await talk()
    for trace in ({"traceparent": "00-a-b-01"}, {}):
        upstream.raw(HEAD, event(end="stop"))
        await ask(provider, ModelRequest("m", REQUEST.messages, {}, trace))
    first, second = (request.headers for request in upstream.requests)
    assert first["traceparent"] == "00-a-b-01" and "traceparent" not in second


@pytest.mark.gen_test
async def test_http_what_cannot_be_said_is_not_sent(talk, upstream):
    """A request that the API has no words for fails before anything is called."""
    request = ModelRequest("m", REQUEST.messages, {"stop": "x"})
    assert (await fail(await talk(), request)).message == "Acme has no parameters"
    assert upstream.requests == []


@pytest.mark.gen_test
async def test_http_a_whole_answer_is_one_event_and_its_end(talk, upstream):
    """An answer that is one JSON document is fed as it is, then ``[DONE]``."""
    upstream.queue(Reply(body={"say": "all", "end": "stop"}))
    upstream.queue(Reply(body={"say": "all", "end": "stop", "bye": True}))
    provider = await talk()
    for _ in range(2):
        assert await ask(provider) == [TextDelta("all"), TurnFinished("stop")]
    assert [len(decoder.seen) for decoder in provider.decoders] == [2, 1]
    assert provider.decoders[0].seen[-1] == b"[DONE]"


@pytest.mark.gen_test
async def test_http_reads_no_more_than_the_last_word(talk, upstream):
    """Once the decoder is done nothing more is fed to it, nor waited for."""
    pieces = event(say="a") + event(end="stop", bye=True) + event(say="more")
    upstream.raw(HEAD, pieces, keep_open=True)
    provider = await talk()
    assert await ask(provider) == [TextDelta("a"), TurnFinished("stop")]
    assert len(provider.decoders[0].seen) == 2
    await upstream.requests[0].closed.wait()


@pytest.mark.gen_test
async def test_http_a_connection_lost_after_the_reason_is_no_fault(talk, upstream):
    """Before the finish reason it is one."""
    head = PLAIN + b"Content-Length: 1000\r\n\r\n"
    upstream.raw(head, event(say="a"), event(end="stop"))
    upstream.raw(head, event(say="a"))
    provider = await talk()
    assert await ask(provider) == [TextDelta("a"), TurnFinished("stop")]
    assert type(await fail(provider)) is ProviderStreamError


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        (event("error", error={"type": "rate_limit_error"}), ProviderRateLimited),
        (event("error", type="overloaded_error"), ProviderUnavailable),
        (event("error", error="what?"), ProviderError),
        (event(say="a") + event(error={"type": "api_error"}), ProviderStreamError),
        (event(say="a"), ProviderStreamError),
        (event(end="nonsense"), ProviderStreamError),
        (b"", ProviderStreamError),
    ],
)
async def test_http_reports_what_the_decoder_finds(talk, upstream, stream, kind):
    """Error objects, answers that end too soon and nonsense become Edwin's errors."""
    upstream.raw(HEAD, stream)
    assert type(await fail(await talk())) is kind


@pytest.mark.gen_test
async def test_http_stop_ends_calls_under_way(talk, upstream):
    """Before the head and in the middle of an answer: both fail, neither hangs."""
    upstream.hang()
    upstream.raw(HEAD, event(say="a"), keep_open=True)
    provider = await talk()
    headless = asyncio.create_task(fail(provider))
    await upstream.arrival(1)
    begun = provider.stream(REQUEST)
    assert await anext(begun) == TextDelta("a")
    rest = asyncio.create_task(anext(begun))
    await asyncio.sleep(0)
    await provider.stop()
    assert (await headless).message == "provider 'acme' was stopped"
    with pytest.raises(ProviderStreamError):
        await rest


@pytest.mark.gen_test
async def test_http_uses_its_proxy(talk, upstream):
    """With ``proxy`` calls go through it, with its name and password; the provider
    sees neither of them."""
    async with Proxy(urlsplit(upstream.url).port) as proxy:
        upstream.raw(HEAD, event(say="a"), event(end="stop"))
        address = proxy.url.replace("//", "//me:secret-word@")
        url = "http://nohost.invalid/v1"
        provider = await talk(baseUrl=url, options={"proxy": address})
        assert len(await ask(provider)) == 2
        ((line, headers),) = proxy.passed
        await provider.stop()
    assert line == "POST http://nohost.invalid/v1/talk HTTP/1.1"
    assert headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0LXdvcmQ="
    assert (headers["Host"], headers["x-acme-key"]) == ("nohost.invalid", "sk-1")


@pytest.mark.gen_test
async def test_http_a_proxy_gets_no_key_of_the_provider(acme, upstream):
    """A bearer's token is the provider's; it is not what the proxy is shown."""
    async with Proxy(urlsplit(upstream.url).port) as proxy:
        for address in (proxy.url, proxy.url.replace("//", "//me:secret-word@")):
            provider = await acme(apiKey="sk-1", options={"proxy": address})
            await ask(provider)
            await provider.stop()
        plain, named = (passed.headers for passed in proxy.passed)
    assert "Proxy-Authorization" not in plain
    assert named["Proxy-Authorization"] == "Basic bWU6c2VjcmV0LXdvcmQ="
    for request in upstream.requests:
        assert request.headers.get_list("Authorization") == ["Bearer sk-1"]


@pytest.mark.gen_test
async def test_http_asks_its_proxy_for_a_tunnel(talk, caplog):
    """To an https address the proxy is asked for a tunnel, and gets no key; where it
    refuses, the provider is out of reach, and the log keeps the proxy's password."""
    async with Proxy(0, refusal="407 Proxy Authentication Required") as proxy:
        address = proxy.url.replace("//", "//me:secret-word@")
        url = "https://nohost.invalid/v1"
        fault = await fail(await talk(baseUrl=url, options={"proxy": address}))
        ((line, headers),) = proxy.passed
    assert type(fault) is ProviderUnavailable
    assert line == "CONNECT nohost.invalid:443 HTTP/1.1"
    assert headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0LXdvcmQ="
    assert not {"x-acme-key", "Authorization"} & set(headers)
    assert "407" in caplog.text and "secret-word" not in caplog.text
