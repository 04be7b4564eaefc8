"""What providers over HTTP share: connections, patience, faults, the reading loop.

A provider is a subclass that says where it is, what goes up, and how what comes down
is read::

    class AcmeChat(HttpProvider):
        '''A provider that speaks Acme's chat API.'''

        def __init__(self, config: ProviderConfig) -> None:
            check_options(config, {"shiny": FLAG})      # options.py; proxy is known
            headers = {"x-acme-key": config.api_key} if config.api_key else {}
            super().__init__(config, url="https://acme.test/v1/chat", headers=headers)

        def _document(self, request: ModelRequest) -> dict[str, Any]:
            return {"model": request.model, "turns": ..., "stream": self._config.stream}

        def _decoder(self) -> Decoder:
            return AcmeDecoder()                        # a new one for each answer
"""

from __future__ import annotations

import asyncio
import io
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import orjson
from aiohttp.http import HttpProcessingError

from edwin import __version__
from edwin.errors import EdwinError
from edwin.providers import faults
from edwin.providers.base import DEFAULT_CONTEXT_TOKENS
from edwin.providers.chunks import ErrorAnswer, MalformedAnswer
from edwin.providers.patience import Patience
from edwin.providers.reports import Reports
from edwin.providers.sse import EventSplitter, TooLong, WholeBody
from edwin.types import Delta, ModelRequest, TurnFinished

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

_NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError)
_MAX_ERROR_BYTES = 64 * 1024
_ERROR_BODY_S = 5.0
# How long the body's end may take after the answer's; later, the connection is lost.
_DRAIN_S = 0.1
_KEEP_ALIVE_S = 60.0
# aiohttp warns that more bytes in one piece may block the loop.
_MAX_PIECE_BYTES = 1024 * 1024


class Decoder(Protocol):
    """Makes deltas of one answer, which comes in events, or whole; knows no socket.

    Attributes:
        started: Whether there was a delta.
        done: Whether the provider has said its last word: nothing more is read.
        finish_reason: Why the model ended, in OpenAI's words; None until it came.  Once
            it is there, a connection that is lost is no fault any more.

    """

    started: bool
    done: bool
    finish_reason: str | None

    @property
    def complete(self) -> bool:
        """Whether the provider has said that the answer is whole.

        Where it is not when the body ends, the answer is a ``ProviderStreamError``.
        """
        ...

    def feed(self, data: bytes) -> Sequence[Delta]:
        """Take the next event in, and return the deltas it brings.

        Args:
            data: What stands behind ``data:`` in one event.  Its ``event:`` line is not
                handed on, but that of an event called ``error`` comes as an object
                that has an ``error``.  Or, of an answer that is one JSON document
                (``application/json``), the document, and then ``b"[DONE]"`` unless
                *done* is set by then.

        Raises:
            MalformedAnswer: (``providers.chunks``) If it cannot be read.
            ErrorAnswer: (``providers.chunks``) If it is an error object; its ``error``
                is what ``providers.faults`` knows how to read: an object with a
                ``message`` and a ``type`` or ``code``, or a text.

        """
        ...

    def finish(self) -> TurnFinished:
        """Return the end of an answer that is *complete*; called once.

        Raises:
            MalformedAnswer: If it is not so complete after all.

        """
        ...


class HttpProvider(ABC):
    """A provider that is called over HTTP, see :class:`edwin.providers.base.Provider`.

    One connection pool without a limit (the gateway limits its runs and, where that is
    configured, the calls of a provider), no cookies, no redirects, no proxy but the
    option ``proxy``.

    Args:
        config: Of the provider; its options are checked by the subclass
            (:func:`edwin.providers.options.check_options`), before.
        url: Where calls go, query included.
        headers: What the API wants beside the usual, the credential for one.  The
            configured ``headers`` replace both, whatever their case.  No secret but the
            configured ``apiKey`` may be among them: the log masks no other.

    """

    def __init__(
        self, config: ProviderConfig, *, url: str, headers: Mapping[str, str]
    ) -> None:
        self.name = config.name
        self.context_tokens = config.context_tokens or DEFAULT_CONTEXT_TOKENS
        self.context_is_known = config.context_tokens is not None
        self.retries = config.retries
        self.retry_seconds = config.retry_seconds
        self._config = config
        self._url = url
        self._headers = _merged(_COMMON_HEADERS, headers, config.headers)
        self._proxy: str | None = config.options.get("proxy")
        self._reports = Reports(config, _secrets(config))
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[Callable[[], None]] = set()

    @abstractmethod
    def _document(self, request: ModelRequest) -> Mapping[str, Any]:
        """Return the body of the call that *request* asks for, before it is JSON.

        Raises:
            EdwinError: If it cannot be said in this API; nothing is called then.

        """

    @abstractmethod
    def _decoder(self) -> Decoder:
        """Return what makes deltas of one answer."""

    async def start(self) -> None:
        """Make the connection pool; nothing is called."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp sends a session's headers to the proxy too, the key among them.
            headers=None if self._proxy else self._headers,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._config.connect_seconds
            ),
        )

    async def stop(self) -> None:
        """Close every connection; calls under way fail."""
        session, self._session = self._session, None
        if session is not None:
            # The session's own close leaves whoever waits for bytes waiting.
            for give_up in tuple(self._under_way):
                give_up()
            await session.close()

    async def stream(
        self, request: ModelRequest
    ) -> AsyncGenerator[Delta | TurnFinished, None]:
        """Call the model once, see :meth:`edwin.providers.base.Provider.stream`.

        All deltas of one network read are yielded without a suspension in between.

        ``firstDeltaSeconds`` runs from the call to the first delta, whatever else
        comes before; ``idleSeconds`` from then on, and there any byte is a sign of
        life, a comment (``: keep-alive``) too.

        The turn ends with the provider's word for it, see :class:`Decoder`.  Without
        that it is a fault, however cleanly the stream ended; a connection lost after a
        finish reason is none.
        """
        deadline = asyncio.get_running_loop().time() + self._config.first_delta_seconds
        response = await self._call(request, deadline)
        patience = Patience(response.close, deadline, self._config.idle_seconds)
        decoder = self._decoder()
        self._under_way.add(response.close)
        try:
            body = self._body_of(response)
            while not decoder.done:
                data = await self._read(response, patience, decoder)
                for event in body.feed(data) if data else body.finish():
                    deltas = decoder.feed(event)
                    if deltas and not patience.began:
                        patience.begin()
                    for delta in deltas:
                        yield delta
                    if decoder.done:
                        break
                if not data:
                    break
            if not decoder.complete:
                raise self._reports.broken("it ended before it was complete")
            end = decoder.finish()
            patience.stop()
            await _drain(response)
            yield end
        except ErrorAnswer as answer:
            raise self._reports.fault(
                200, answer.error, started=decoder.started
            ) from None
        except (MalformedAnswer, TooLong) as error:
            raise self._reports.broken(str(error)) from error
        finally:
            patience.stop()
            # Closes, at once, a connection that still has something to say; one
            # whose answer was read to its end is back in the pool already.
            response.close()
            self._under_way.discard(response.close)

    async def _call(
        self, request: ModelRequest, deadline: float
    ) -> aiohttp.ClientResponse:
        session = self._session
        if session is None:
            raise RuntimeError(f"provider {self.name!r} is not started")
        payload = orjson.dumps(self._document(request))
        large = len(payload) > _MAX_PIECE_BYTES
        try:
            async with asyncio.timeout_at(deadline) as limit:
                with self._ended_by_stop(limit):
                    response = await session.post(
                        self._url,
                        data=io.BytesIO(payload) if large else payload,
                        headers=self._headers_of(request),
                        allow_redirects=False,
                        proxy=self._proxy,
                    )
        except aiohttp.ConnectionTimeoutError as error:
            raise self._reports.timeout("connect") from error
        except TimeoutError as error:
            if session is not self._session:
                raise self._reports.stopped() from error
            raise self._reports.timeout("first delta") from error
        except _NETWORK_ERRORS as error:
            raise self._reports.unreachable(error) from error
        if not 200 <= response.status < 300:
            raise await self._refusal(response)
        return response

    def _headers_of(self, request: ModelRequest) -> Mapping[str, str]:
        return {**self._headers, **request.trace} if self._proxy else request.trace

    @contextmanager
    def _ended_by_stop(self, limit: asyncio.Timeout) -> Iterator[None]:
        def give_up() -> None:
            if not limit.expired():
                limit.reschedule(0)

        self._under_way.add(give_up)
        try:
            yield
        finally:
            self._under_way.discard(give_up)

    async def _read(
        self,
        response: aiohttp.ClientResponse,
        patience: Patience,
        decoder: Decoder,
    ) -> bytes:
        """Return the bytes that are there, or the next that come; none at the end."""
        patience.wait()
        try:
            data = await response.content.readany()
        except _NETWORK_ERRORS as error:
            if decoder.finish_reason is not None:
                return b""
            if patience.exhausted:
                which = "silence" if patience.began else "first delta"
                raise self._reports.timeout(which) from error
            raise self._reports.broken(f"{type(error).__name__}: {error}") from error
        patience.rest()
        return data

    def _body_of(self, response: aiohttp.ClientResponse) -> EventSplitter | WholeBody:
        kind = response.content_type
        if kind == "text/html":
            raise self._reports.broken(
                f"an HTML page came instead (HTTP {response.status})"
            )
        return WholeBody() if kind == "application/json" else EventSplitter()

    async def _refusal(self, response: aiohttp.ClientResponse) -> EdwinError:
        body = bytearray()
        try:
            with suppress(TimeoutError, *_NETWORK_ERRORS):
                async with asyncio.timeout(_ERROR_BODY_S):
                    while len(body) < _MAX_ERROR_BYTES:
                        data = await response.content.readany()
                        if not data:
                            break
                        body += data
        finally:
            response.close()
        error = faults.parse(bytes(body[:_MAX_ERROR_BYTES]))
        return self._reports.fault(response.status, error, headers=response.headers)


_COMMON_HEADERS = {
    "Accept": "text/event-stream, application/json",
    # A compressed stream comes in the compressor's pieces, not the model's.
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": f"edwin-gateway/{__version__}",
}


def _merged(*layers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of all *layers*; of one name, in any case, the last counts."""
    merged: dict[str, tuple[str, str]] = {}
    for layer in layers:
        merged.update({name.lower(): (name, layer[name]) for name in layer})
    return dict(merged.values())


def _secrets(config: ProviderConfig) -> tuple[str, ...]:
    # What aiohttp says of a proxy may hold its address.
    proxy = urlsplit(config.options.get("proxy") or "").password
    return tuple(filter(None, (config.api_key, *config.headers.values(), proxy)))


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read to the end of the body, which lets the connection be used again."""
    with suppress(TimeoutError, *_NETWORK_ERRORS):
        async with asyncio.timeout(_DRAIN_S):
            while not response.content.at_eof():
                await response.content.readany()
