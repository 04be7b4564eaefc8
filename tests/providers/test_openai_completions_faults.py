"""How calls of an OpenAI-compatible provider fail, and how they are ended."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import aclosing

import orjson
import pytest

from edwin.errors import (
    ContextLengthExceeded,
    EdwinError,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamError,
    ProviderTimeout,
    ProviderUnavailable,
)
from edwin.testing import Reply, ScriptedUpstream
from edwin.types import ModelRequest, TextDelta, TurnFinished

REQUEST = ModelRequest("m", [{"role": "user", "content": "Hello"}], {})
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
HEAD = PLAIN + b"\r\n"
CHUNKED = PLAIN + b"Transfer-Encoding: chunked\r\n\r\n"
TEXT = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
STOP = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'


def error(**fields) -> bytes:
    return b"data: " + orjson.dumps({"error": fields}) + b"\n\n"


async def fail(provider) -> tuple[list, EdwinError]:
    """Return the events that came before the error, and the error."""
    events = []
    with pytest.raises(EdwinError) as caught:
        async with aclosing(provider.stream(REQUEST)) as stream:
            async for event in stream:
                events.append(event)
    return events, caught.value


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "bad"}}, ProviderError),
        (401, {"error": {"message": "bad"}}, ProviderError),
        (403, b"<html>forbidden</html>", ProviderError),
        (404, {"detail": "Not Found"}, ProviderError),
        (418, b"", ProviderError),
        (400, {"error": {"code": "context_length_exceeded"}}, ContextLengthExceeded),
        (429, {"error": {"message": "slow down"}}, ProviderRateLimited),
        (429, {"error": {"code": "insufficient_quota"}}, ProviderRateLimited),
        (500, b"oops", ProviderUnavailable),
        (502, b"<html>bad gateway</html>", ProviderUnavailable),
        (503, {"error": {"message": "loading"}}, ProviderUnavailable),
        (504, b"", ProviderUnavailable),
        (200, {"error": {"code": 429}}, ProviderRateLimited),
        (200, {"error": {"type": "server_error"}}, ProviderUnavailable),
        (200, {"error": {"message": "bad"}}, ProviderError),
        (200, {"ok": True}, ProviderStreamError),
        (200, b"{", ProviderStreamError),
    ],
)
async def test_openai_reports_refusals(acme, upstream, status, body, kind):
    """What a provider answers instead of an answer becomes one of Edwin's errors."""
    upstream.fail(status, body, headers={"Retry-After": "7"})
    events, fault = await fail(await acme())
    assert (events, type(fault)) == ([], kind)
    if status == 503:
        assert fault.retry_after_s == 7


@pytest.mark.gen_test
async def test_openai_keeps_the_providers_words_to_the_log(acme, upstream, caplog):
    """The log has the status and the provider's words, cut and without the secrets;
    the client has neither."""
    words = "wrong key sk-12345678 of tenant-99, said\nin two lines: " + "x" * 1000
    upstream.fail(401, {"error": {"message": words}})
    headers = {"x-tenant": "tenant-99"}
    with caplog.at_level(logging.WARNING, logger="edwin.providers"):
        _, fault = await fail(await acme(apiKey="sk-12345678", headers=headers))
    assert "wrong key" not in fault.message and "apiKey" in fault.message
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "edwin.providers")
    assert "wrong key *** of ***, said in two lines: xxx" in record.getMessage()
    assert len(record.getMessage()) < 650
    assert record.fields == {
        "provider": "acme",
        "status": 401,
        "code": "provider_error",
    }


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("off_host", [False, True])
async def test_openai_follows_no_redirect(acme, upstream, status, off_host):
    """A redirect would carry key and conversation elsewhere: it is an error."""
    async with ScriptedUpstream() as other:
        target = other if off_host else upstream
        upstream.fail(status, b"", headers={"Location": target.url + "/elsewhere"})
        _, fault = await fail(await acme(apiKey="the-key"))
        assert type(fault) is ProviderError
        assert fault.code == "provider_error" and fault.should_retry is False
        assert f"redirect (HTTP {status})" in fault.message
        assert "models.providers.acme.baseUrl" in fault.message
        assert target.url not in fault.message
        assert (len(upstream.requests), len(other.requests)) == (1, 0)


@pytest.fixture
def closed_port():
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return port


@pytest.mark.gen_test
async def test_openai_reports_a_refused_connection(acme, closed_port):
    """Nobody listens: the provider is unavailable."""
    _, fault = await fail(await acme(baseUrl=f"http://127.0.0.1:{closed_port}/v1"))
    assert type(fault) is ProviderUnavailable
    assert str(closed_port) not in fault.message


@pytest.mark.gen_test
async def test_openai_reports_an_unknown_host(acme):
    """No such name: the provider is unavailable."""
    _, fault = await fail(await acme(baseUrl="http://nohost.invalid/v1"))
    assert type(fault) is ProviderUnavailable


@pytest.mark.gen_test
async def test_openai_reports_a_tls_failure(acme):
    """TLS with a port that speaks something else: the provider is unavailable."""

    def answer(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, fault = await fail(await acme(baseUrl=f"https://127.0.0.1:{port}/v1"))
    assert type(fault) is ProviderUnavailable


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nConte", b"not HTTP at all\r\n\r\n"]
)
async def test_openai_reports_a_connection_lost_before_the_head(acme, upstream, answer):
    """A connection that ends without a head brought no answer."""
    upstream.raw(answer)
    events, fault = await fail(await acme())
    assert (events, type(fault)) == ([], ProviderUnavailable)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        pytest.param(HEAD, 0, id="nothing"),
        pytest.param(HEAD + b"data: [DONE]\n\n", 0, id="only DONE"),
        pytest.param(HEAD + TEXT * 2, 2, id="clean end without DONE"),
        pytest.param(HEAD + TEXT + b'data: {"choices": [{"del', 1, id="cut event"),
        pytest.param(HEAD + TEXT + b"data: [DON", 1, id="cut DONE"),
        pytest.param(HEAD + TEXT + b"data: junk\n\n" + STOP, 1, id="junk"),
        pytest.param(HEAD + TEXT + b"data: \xff\n\n" + STOP, 1, id="not UTF-8"),
        pytest.param(HEAD + TEXT + b"data: [1]\n\n" + STOP, 1, id="wrong shape"),
        pytest.param(CHUNKED + b"%x\r\n" % len(TEXT) + TEXT + b"\r\n", 1, id="drop"),
        pytest.param(PLAIN + b"Content-Length: 999\r\n\r\n" + TEXT, 1, id="short body"),
        pytest.param(HEAD + TEXT + error(message="oops"), 1, id="error after text"),
        pytest.param(HEAD + TEXT + error(code=500), 1, id="5xx after text"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", 0, id="HTML"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello", 0, id="text"
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 0, id="no content"),
    ],
)
async def test_openai_reports_a_broken_answer(acme, upstream, answer, texts):
    """An answer that breaks off is an error after the text that came; never a stop."""
    upstream.raw(answer)
    events, fault = await fail(await acme())
    assert events == [TextDelta("a")] * texts
    assert type(fault) is ProviderStreamError


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"code": "rate_limit_exceeded"}, ProviderRateLimited),
        ({"code": 503, "message": "overloaded"}, ProviderUnavailable),
        ({"code": 400, "message": "maximum context length"}, ContextLengthExceeded),
        ({"message": "oops"}, ProviderError),
    ],
)
async def test_openai_reports_an_error_in_place_of_a_stream(
    acme, upstream, fields, kind
):
    """An error event before any text goes by its own code."""
    upstream.raw(HEAD + b": processing\n\n" + error(**fields))
    events, fault = await fail(await acme())
    assert (events, type(fault)) == ([], kind)


@pytest.mark.gen_test
async def test_openai_reports_bad_framing(acme, upstream):
    """Chunks that are none end an answer, at the latest as a silence."""
    chunk = b"%x\r\n" % len(TEXT) + TEXT + b"\r\n"
    upstream.raw(CHUNKED + chunk, b"zz\r\n", gap_s=0.05)
    events, fault = await fail(await acme(idleSeconds=0.3))
    assert events == [TextDelta("a")]
    # The HTTP client closes such a connection without a word to its reader.
    assert type(fault) in (ProviderStreamError, ProviderTimeout)


@pytest.mark.gen_test
async def test_openai_accepts_a_drop_after_the_finish_reason(acme, upstream):
    """Once the provider has said that the answer is whole, it is."""
    upstream.raw(CHUNKED + b"%x\r\n" % len(TEXT + STOP) + TEXT + STOP + b"\r\n")
    provider = await acme()
    async with aclosing(provider.stream(REQUEST)) as stream:
        events = [event async for event in stream]
    assert events == [TextDelta("a"), TurnFinished("stop")]


@pytest.mark.gen_test
async def test_openai_refuses_an_endless_event(acme, upstream):
    """An event that never ends is not collected for ever."""
    upstream.raw(HEAD + TEXT, *[b"data: " + b"x" * 1_000_000] * 20, keep_open=True)
    events, fault = await fail(await acme())
    assert (events, type(fault)) == ([TextDelta("a")], ProviderStreamError)


@pytest.mark.gen_test
async def test_openai_gives_up_connecting(acme):
    """``connectSeconds`` covers TLS: a port that says nothing is a timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/v1"
        _, fault = await fail(await acme(baseUrl=url, connectSeconds=0.1))
    assert type(fault) is ProviderTimeout
    assert "took no connection within 0.1 s" in fault.message


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "reply",
    [
        Reply(silent_at=-1),
        Reply(silent_at=0),
        Reply(raw=[HEAD] + [b": keep-alive\n\n"] * 50, gap_s=0.02, keep_open=True),
    ],
    ids=["no head", "silence", "comments"],
)
async def test_openai_gives_up_on_the_first_delta(acme, upstream, reply):
    """``firstDeltaSeconds`` runs to the first delta, whatever else comes before."""
    upstream.queue(reply)
    events, fault = await fail(await acme(firstDeltaSeconds=0.2))
    assert (events, type(fault)) == ([], ProviderTimeout)
    assert "began no answer within 0.2 s" in fault.message
    async with asyncio.timeout(1):
        await upstream.requests[0].closed.wait()


@pytest.mark.gen_test
@pytest.mark.parametrize("first_s", [0.05, 120])
async def test_openai_gives_up_on_a_silence(acme, upstream, first_s):
    """``idleSeconds`` is the longest silence between two signs of life."""
    upstream.hang(after=["some", " text"])
    provider = await acme(firstDeltaSeconds=first_s, idleSeconds=0.2)
    events, fault = await fail(provider)
    assert events == [TextDelta("some"), TextDelta(" text")]
    assert type(fault) is ProviderTimeout
    assert "fell silent for 0.2 s" in fault.message
    async with asyncio.timeout(1):
        await upstream.requests[0].closed.wait()


@pytest.mark.gen_test
async def test_openai_takes_comments_for_life(acme, upstream):
    """A provider that thinks, and says so in comments, is not silent."""
    pieces = [HEAD + TEXT, *[b": keep-alive\n\n"] * 5, STOP]
    upstream.raw(*pieces, gap_s=0.1)
    provider = await acme(idleSeconds=0.4)
    async with aclosing(provider.stream(REQUEST)) as stream:
        events = [event async for event in stream]
    assert events == [TextDelta("a"), TurnFinished("stop")]


@pytest.mark.gen_test
async def test_openai_does_not_blame_the_provider_for_a_slow_reader(acme, upstream):
    """Time the consumer takes is not the provider's silence."""
    upstream.reply(deltas=["a", "b", "c"], gap_s=0.01)
    provider = await acme(idleSeconds=0.1, firstDeltaSeconds=0.1)
    texts = []
    async with aclosing(provider.stream(REQUEST)) as stream:
        async for event in stream:
            texts.append(event)
            await asyncio.sleep(0.15)
    assert texts[:-1] == [TextDelta("a"), TextDelta("b"), TextDelta("c")]


@pytest.mark.gen_test
@pytest.mark.parametrize("after", [None, [], ["some", " text"]])
async def test_openai_closes_at_once_when_cancelled(acme, upstream, after):
    """A cancelled call closes its connection though the provider is silent."""
    upstream.hang(after=after)
    provider = await acme()

    async def read():
        async with aclosing(provider.stream(REQUEST)) as stream:
            async for _ in stream:
                pass

    reading = asyncio.create_task(read())
    request = await upstream.arrival()
    await asyncio.sleep(0.05)
    reading.cancel()
    async with asyncio.timeout(0.5):
        await request.closed.wait()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.gen_test
async def test_openai_closes_at_once_when_left(acme, upstream):
    """Closing the generator closes the connection, which is not used again."""
    upstream.hang(after=["some", " text"])
    provider = await acme()
    stream = provider.stream(REQUEST)
    assert await anext(stream) == TextDelta("some")
    await stream.aclose()
    async with asyncio.timeout(0.5):
        await upstream.requests[0].closed.wait()
    async with aclosing(provider.stream(REQUEST)) as stream:
        assert await anext(stream) == TextDelta("Hello")
    assert upstream.requests[1].connection == 2


@pytest.mark.gen_test
async def test_openai_calls_do_not_wait_for_each_other(acme, upstream):
    """There is no limit of connections here: a hundred calls run at once."""
    provider = await acme()
    for _ in range(100):
        upstream.hang(after=["a"])

    async def read():
        async with aclosing(provider.stream(REQUEST)) as stream:
            return [event async for event in stream]

    reading = [asyncio.create_task(read()) for _ in range(100)]
    await upstream.arrival(100)
    upstream.release()
    for events in await asyncio.gather(*reading):
        assert events[0] == TextDelta("a")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (None, ProviderUnavailable),
        ([], ProviderStreamError),
        (["a"], ProviderStreamError),
    ],
)
async def test_openai_stops_with_calls_under_way(acme, upstream, after, kind):
    """Stopping closes every connection; a call under way fails."""
    upstream.hang(after=after)
    provider = await acme()
    reading = asyncio.create_task(fail(provider))
    request = await upstream.arrival()
    await asyncio.sleep(0.05)
    await provider.stop()
    async with asyncio.timeout(1):
        events, fault = await reading
        await request.closed.wait()
    assert events == [TextDelta(text) for text in after or ()]
    assert type(fault) is kind
