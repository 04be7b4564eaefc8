"""Any server that speaks OpenAI's chat completions: ``api: openai-completions``.

Two options: ``proxy``, the URL of an HTTP proxy (those of the environment are not
used), and ``includeUsage: false`` for a server that refuses ``stream_options``.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiohttp.http import HttpProcessingError

from edwin import __version__
from edwin.errors import (
    ConfigError,
    EdwinError,
    ProviderStreamError,
    ProviderTimeout,
    ProviderUnavailable,
)
from edwin.providers import faults
from edwin.providers.base import DEFAULT_CONTEXT_TOKENS
from edwin.providers.chunks import AnswerDecoder, ErrorAnswer, MalformedAnswer
from edwin.providers.patience import Patience
from edwin.providers.sse import EventSplitter, TooLong, WholeBody
from edwin.types import Delta, ModelRequest, TurnFinished

if TYPE_CHECKING:
    from edwin.config import ProviderConfig

log = logging.getLogger("edwin.providers")

_NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError)
_MAX_ERROR_BYTES = 64 * 1024
_ERROR_BODY_S = 5.0
# How long the end of the body may take after [DONE]; later, the connection is lost.
_DRAIN_S = 0.1
_KEEP_ALIVE_S = 60.0
# aiohttp warns that more bytes in one piece may block the loop.
_MAX_PIECE_BYTES = 1024 * 1024


class OpenAICompletions:
    """A provider that is called over HTTP, see :class:`edwin.providers.base.Provider`.

    One connection pool without a limit (the gateway limits its runs), no cookies, no
    redirects.  What is sent is what the request holds: messages and parameters go up
    unchanged.
    """

    def __init__(self, config: ProviderConfig) -> None:
        _check(config)
        self.name = config.name
        self.context_tokens = config.context_tokens or DEFAULT_CONTEXT_TOKENS
        self.context_is_known = config.context_tokens is not None
        self.retries = config.retries
        self.retry_seconds = config.retry_seconds
        self._config = config
        self._url = f"{config.base_url}/chat/completions"
        self._secrets = tuple(filter(None, (config.api_key, *config.headers.values())))
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[Callable[[], None]] = set()

    async def start(self) -> None:
        """Make the connection pool; nothing is called."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers(),
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

        The turn ends with the provider's word for it: a finish reason, or ``[DONE]``
        after some delta.  Without either it is a fault, however cleanly the stream
        ended; a connection lost after a finish reason is none.
        """
        deadline = asyncio.get_running_loop().time() + self._config.first_delta_seconds
        response = await self._call(request, deadline)
        patience = Patience(response.close, deadline, self._config.idle_seconds)
        decoder = AnswerDecoder(_call_id)
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
                raise self._broken("it ended before it was complete")
            end = decoder.finish()
            patience.stop()
            await _drain(response)
            yield end
        except ErrorAnswer as answer:
            raise self._fault(200, answer.error, started=decoder.started) from None
        except (MalformedAnswer, TooLong) as error:
            raise self._broken(str(error)) from error
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
        try:
            async with asyncio.timeout_at(deadline) as limit:
                with self._ended_by_stop(limit):
                    response = await session.post(
                        self._url,
                        data=self._payload(request),
                        headers=request.trace,
                        allow_redirects=False,
                        proxy=self._config.options.get("proxy"),
                    )
        except aiohttp.ConnectionTimeoutError as error:
            raise self._timeout("connect") from error
        except TimeoutError as error:
            if session is not self._session:
                fault = ProviderUnavailable(f"provider {self.name!r} was stopped")
                raise self._logged(fault, "stopped") from error
            raise self._timeout("first delta") from error
        except _NETWORK_ERRORS as error:
            fault = ProviderUnavailable(f"provider {self.name!r} cannot be reached")
            raise self._logged(fault, f"{type(error).__name__}: {error}") from error
        if not 200 <= response.status < 300:
            raise await self._refusal(response)
        return response

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
        decoder: AnswerDecoder,
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
                raise self._timeout(which) from error
            raise self._broken(f"{type(error).__name__}: {error}") from error
        patience.rest()
        return data

    def _body_of(self, response: aiohttp.ClientResponse) -> EventSplitter | WholeBody:
        kind = response.content_type
        if kind == "text/html":
            raise self._broken(f"an HTML page came instead (HTTP {response.status})")
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
        return self._fault(response.status, error, headers=response.headers)

    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept": "text/event-stream, application/json",
            # A compressed stream comes in the compressor's pieces, not the model's.
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": f"edwin-gateway/{__version__}",
        }
        if self._config.api_key:
            headers["Authorization"] = f"Bearer {self._config.api_key}"
        given = {name.lower() for name in self._config.headers}
        kept = {name: headers[name] for name in headers if name.lower() not in given}
        return {**kept, **self._config.headers}

    def _payload(self, request: ModelRequest) -> bytes | io.BytesIO:
        document = {
            "model": request.model,
            "messages": request.messages,
            **request.params,
        }
        if self._config.stream:
            document["stream"] = True
            if self._config.options.get("includeUsage", True):
                document["stream_options"] = {"include_usage": True}
        payload = orjson.dumps(document)
        return payload if len(payload) <= _MAX_PIECE_BYTES else io.BytesIO(payload)

    def _fault(
        self,
        status: int,
        error: Any,
        *,
        headers: Mapping[str, str] | None = None,
        started: bool = False,
    ) -> EdwinError:
        fault = faults.fault(self.name, status, error, headers=headers, started=started)
        words = faults.said(error, secrets=self._secrets)
        return self._logged(fault, words, status=status)

    def _timeout(self, which: str) -> EdwinError:
        config = self._config
        what = {
            "connect": f"took no connection within {config.connect_seconds:g} s",
            "first delta": f"began no answer within {config.first_delta_seconds:g} s",
            "silence": f"fell silent for {config.idle_seconds:g} s in its answer",
        }[which]
        return self._logged(ProviderTimeout(f"provider {self.name!r} {what}"), which)

    def _broken(self, why: str) -> EdwinError:
        fault = ProviderStreamError(
            f"the answer of provider {self.name!r} broke off, or cannot be read"
        )
        return self._logged(fault, why)

    def _logged(
        self, fault: EdwinError, detail: str, *, status: int | None = None
    ) -> EdwinError:
        fields = {"provider": self.name, "status": status, "code": fault.code}
        log.warning(
            "%s: %s", fault.message, detail or "no reason", extra={"fields": fields}
        )
        return fault


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read to the end of the body, which lets the connection be used again."""
    with suppress(TimeoutError, *_NETWORK_ERRORS):
        async with asyncio.timeout(_DRAIN_S):
            while not response.content.at_eof():
                await response.content.readany()


def _check(config: ProviderConfig) -> None:
    key = f"models.providers.{config.name}"
    if config.base_url is None:
        raise ConfigError(f"{key}.baseUrl is missing; set the provider's address")
    for option, value in config.options.items():
        if option == "includeUsage" and not isinstance(value, bool):
            raise ConfigError(f"{key}.options.{option} must be true or false")
        if option == "proxy" and not re.match(r"https?://[^/]", str(value)):
            raise ConfigError(f"{key}.options.{option} must be an http address")
        if option not in ("includeUsage", "proxy"):
            raise ConfigError(
                f"{key}.options.{option} is unknown; there are includeUsage and proxy"
            )


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
