"""An MCP server that is an HTTP endpoint.  Loaded only where one is configured.

The client is the SDK's, which follows redirects within the endpoint's own origin alone;
it is handed no proxy of the environment, and a look at each answer's head.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import httpx2
import orjson
from mcp.client.streamable_http import streamable_http_client

from edwin.types import McpServer

MAX_ANSWER_BYTES: Final = 16 << 20
# What tells the server something, and waits for no work of it.
NOTICE_S: Final = 10.0

Lost = Callable[[str], None]


class Endpoint:
    """One connection with the server, as far as HTTP has such a thing.

    Attributes:
        gone: Is set, to the reason, when the server is found to have forgotten the
            session, or cannot be reached any more.
        hint: What the last refusal was, for whom it may help.

    """

    def __init__(self, server: McpServer, label: str) -> None:
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.hint = ""
        self._server = server

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[tuple[object, object]]:
        """Give the messages the server sends, and where those for it go."""
        assert self._server.url is not None
        # Reading the machine's certificates takes a while.
        transport = await asyncio.to_thread(_Transport, self)
        client = httpx2.AsyncClient(
            headers=dict(self._server.headers),
            # How long a call may take is the caller's to say; a stream of news is
            # silent for as long as there is none.
            timeout=httpx2.Timeout(
                30.0, connect=self._server.connect_seconds, read=None
            ),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(client)
            yield await stack.enter_async_context(
                streamable_http_client(self._server.url, http_client=client)
            )

    async def close(self) -> None:
        """Do nothing: leaving :meth:`streams` has closed the connections."""
        self.lost("stopped")

    def lost(self, reason: str) -> None:
        """Let the connection be made anew."""
        if not self.gone.done():
            self.gone.set_result(reason)


class _Transport(httpx2.AsyncHTTPTransport):
    """HTTP, with an eye on what the SDK does not tell."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send *request*, and look at the head of what comes back."""
        if request.method == "POST" and not _is_call(request.content):
            limits = request.extensions.get("timeout", {}) | {"read": NOTICE_S}
            request.extensions = dict(request.extensions) | {"timeout": limits}
        try:
            response = await super().handle_async_request(request)
        except httpx2.ConnectError:
            if request.method == "GET":
                self._endpoint.lost("it cannot be reached")
            raise
        if response.status_code >= 300:
            self._endpoint.hint = f"HTTP status {response.status_code}"
        if (
            response.status_code == 404
            and request.method == "POST"
            and "mcp-session-id" in request.headers
        ):
            self._endpoint.lost("it has forgotten the session")
        kind = response.headers.get("content-type", "").lower()
        if not kind.startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream)
        return response


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer, up to :data:`MAX_ANSWER_BYTES`."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise httpx2.StreamError(
                    f"the answer has more than {MAX_ANSWER_BYTES:,} bytes"
                )
            yield piece

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._stream.aclose()


def _is_call(body: bytes) -> bool:
    """Return whether *body* asks for an answer."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return True
    return isinstance(message, dict) and "method" in message and "id" in message
