"""A model's provider that answers from a script, over real HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from edwin.testing.reply import AUTO, BEFORE_HEAD, USAGE, Reply, echo, words

When = Callable[[dict[str, Any]], bool]


@dataclass(eq=False)
class Request:
    """One request as it arrived.

    Attributes:
        body: The decoded JSON body.
        connection: Which TCP connection brought it, counted from 1.
        arrived_at: Unix seconds; *closed_at* likewise, None unless closed.
        closed: Set when the client closed before the answer's end.
        over: Set when the answer has ended, whichever way.

    """

    path: str
    headers: HTTPHeaders
    body: dict[str, Any]
    connection: int
    arrived_at: float
    closed_at: float | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Let a silent answer go on."""
        self._released.set()


class ScriptedUpstream:
    """A provider on 127.0.0.1 that answers chat completions from a script.

    A request is answered by *on_request*, where that gives a reply; else by the
    first queued reply that fits it; else by *default*.  Requests are answered
    concurrently, on any path.

    Attributes:
        url: What a provider's ``baseUrl`` is to be, once started.
        requests: What arrived, in order.
        default: The answer when nothing is queued; None echoes the last user message.
        on_request: Called with each request's body; returns a reply or None.

    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.default: Reply | None = None
        self.on_request: Callable[[dict[str, Any]], Reply | None] | None = None
        self._queue: list[tuple[When | None, Reply]] = []
        self._arrival = asyncio.Condition()
        self._streams: dict[IOStream, int] = {}
        self._server: HTTPServer | None = None

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        application = Application(
            [(r".*", _Handler, {"upstream": self})], log_function=lambda handler: None
        )
        sockets = bind_sockets(0, "127.0.0.1")
        self._server = HTTPServer(application)
        self._server.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        """Close every connection, in whatever state; returns when all are gone."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.stop()
        await server.close_all_connections()
        for request in self.requests:
            await request.over.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def reply(
        self,
        text: str | None = None,
        *,
        deltas: Sequence[str | Mapping[str, Any]] = (),
        gap_s: float = 0.0,
        finish_reason: str | None = AUTO,
        usage: Mapping[str, Any] | None = USAGE,
        tool_calls: Sequence[Mapping[str, Any]] = (),
        logprobs: Sequence[Mapping[str, Any] | None] = (),
        cut: bool = False,
        when: When | None = None,
    ) -> None:
        """Queue one answer: *text* word by word, or *deltas*; see :class:`Reply`.

        Args:
            when: Keeps the answer for the first request whose body it is true of.

        """
        reply = Reply(
            deltas=deltas if text is None else words(text),
            gap_s=gap_s,
            finish_reason=finish_reason,
            usage=usage,
            tool_calls=tool_calls,
            logprobs=logprobs,
            cut=cut,
        )
        self.queue(reply, when=when)

    def fail(
        self,
        status: int,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        when: When | None = None,
    ) -> None:
        """Queue an answer with *status* and *body* (JSON, or bytes as they stand)."""
        if body is None:
            body = {"error": {"message": f"scripted failure {status}"}}
        self.queue(Reply(status=status, body=body, headers=headers or {}), when=when)

    def hang(
        self,
        after: Sequence[str] | None = None,
        *,
        then: Sequence[str] = (),
        when: When | None = None,
    ) -> None:
        """Queue an answer that falls silent until it is released or closed.

        Args:
            after: Pieces sent before the silence; empty: only the head; None: nothing.
            then: Pieces sent, and the answer ended, once it is released.
            when: As for :meth:`reply`.

        """
        silent_at = BEFORE_HEAD if after is None else len(after)
        deltas = (*(after or ()), *then)
        self.queue(Reply(deltas=deltas, silent_at=silent_at), when=when)

    def raw(
        self,
        *pieces: bytes,
        gap_s: float = 0.0,
        keep_open: bool = False,
        when: When | None = None,
    ) -> None:
        """Queue bytes for the socket as they stand; then close it, or keep it open."""
        self.queue(Reply(raw=pieces, gap_s=gap_s, keep_open=keep_open), when=when)

    def queue(self, reply: Reply, *, when: When | None = None) -> None:
        """Queue *reply*, for the first request that *when* is true of."""
        self._queue.append((when, reply))

    def release(self) -> None:
        """Let every silent answer go on."""
        for request in self.requests:
            request.release()

    async def arrival(self, count: int = 1) -> Request:
        """Wait until *count* requests have arrived in all; return the last of them."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def _arrived(self, request: Request) -> Reply:
        self.requests.append(request)
        async with self._arrival:
            self._arrival.notify_all()
        if self.on_request is not None:
            reply = self.on_request(request.body)
            if reply is not None:
                return reply
        for index, (when, reply) in enumerate(self._queue):
            if when is None or when(request.body):
                del self._queue[index]
                return reply
        return self.default or echo(request.body)

    def _connection(self, stream: IOStream) -> int:
        return self._streams.setdefault(stream, len(self._streams) + 1)


class _Handler(RequestHandler):
    def initialize(self, upstream: ScriptedUpstream) -> None:
        self.upstream = upstream
        self.gone = asyncio.Event()

    async def post(self) -> None:
        self.stream: IOStream = self.request.connection.stream  # type: ignore[union-attr]
        self.stream.set_nodelay(True)
        self.arrived = Request(
            path=self.request.path,
            headers=self.request.headers,
            body=orjson.loads(self.request.body),
            connection=self.upstream._connection(self.stream),
            arrived_at=time.time(),
        )
        try:
            await self.play(await self.upstream._arrived(self.arrived))
        except StreamClosedError:
            self._auto_finish = False
        finally:
            self.arrived.over.set()

    def on_connection_close(self) -> None:
        # Also called when this side closes, which is nothing the client did.
        if not self.gone.is_set() and self.upstream._server is not None:
            self.arrived.closed_at = time.time()
            self.arrived.closed.set()
        self.gone.set()
        self.arrived.release()

    async def play(self, reply: Reply) -> None:
        body = self.arrived.body
        silent = reply.silent_at is not None
        if reply.silent_at == BEFORE_HEAD or (silent and not body.get("stream")):
            await self.silence()
        streamed = reply.body is None and body.get("stream")
        kind = "text/event-stream" if streamed else "application/json"
        for name, value in {"Content-Type": kind, **reply.headers}.items():
            self.set_header(name, value)
        if reply.raw is not None:
            await self.play_raw(reply, reply.raw)
        elif streamed:
            await self.play_stream(reply, body)
        else:
            document = reply.whole(body) if reply.body is None else reply.body
            self.set_status(reply.status)
            self.write(
                document if isinstance(document, bytes) else orjson.dumps(document)
            )

    async def play_raw(self, reply: Reply, pieces: Sequence[bytes]) -> None:
        for index, piece in enumerate(pieces):
            if index and reply.gap_s:
                await self.pause(reply.gap_s)
            await self.stream.write(piece)
        if reply.keep_open:
            await self.gone.wait()
        self.hang_up()

    async def play_stream(self, reply: Reply, body: dict[str, Any]) -> None:
        await self.flush()
        opening = [reply.opening(body)]
        pieces = reply.pieces()
        for index, piece in enumerate(pieces):
            if index == reply.silent_at:
                await self.silence()
            elif index and reply.gap_s:
                await self.pause(reply.gap_s)
            self.events(*opening, reply.chunk(body, piece))
            opening = []
        if len(pieces) == reply.silent_at:
            await self.silence()
        if reply.cut:
            self.events(*opening)
            await self.flush()
            self.hang_up()
            return
        self.events(*opening, *reply.closing(body))
        self.write(b"data: [DONE]\n\n")

    def events(self, *documents: Mapping[str, Any]) -> None:
        for document in documents:
            self.write(b"data: " + orjson.dumps(document) + b"\n\n")

    async def silence(self) -> None:
        if self._headers_written:
            await self.flush()
        await self.arrived._released.wait()
        if self.gone.is_set():
            raise StreamClosedError

    async def pause(self, seconds: float) -> None:
        if self._headers_written:
            await self.flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.gone.wait()
        if self.gone.is_set():
            raise StreamClosedError

    def hang_up(self) -> None:
        self._auto_finish = False
        self.gone.set()
        self.stream.close()
