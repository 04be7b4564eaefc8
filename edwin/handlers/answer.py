"""Give a run's answer over HTTP, whole or as a stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import orjson
from tornado.iostream import StreamClosedError

from edwin.errors import EdwinError
from edwin.handlers.api import ApiHandler
from edwin.handlers.give import PIECE_BYTES, send, watched
from edwin.handlers.reset import arrived
from edwin.handlers.watch import Watch
from edwin.runs.reader import Reader
from edwin.runs.run import Run
from edwin.types import Event, RunFailed, RunFinished, RunQueued, RunStarted
from edwin.wire import openai, sse

# So many events are encoded at once.
SLICE = 1_000

_UNSEEN = (RunQueued, RunStarted)


class RunHandler(ApiHandler):
    """Base of the handlers whose answer is a run's."""

    reader: Reader | None = None

    def on_connection_close(self) -> None:
        """Leave the run, which ends it if nobody else reads; called by Tornado."""
        super().on_connection_close()
        if self.reader is not None:
            self.reader.close()

    async def whole(self, run: Run, *, model: str) -> None:
        """Answer with one body, when the run has come to its end."""
        with self._answering(run) as reader:
            end = await reader.result()
            self.set_run_headers(run)
            body = orjson.dumps(
                openai.completion(
                    end, run_id=run.id, created=int(run.created_at), model=model
                )
            )
            self.set_header("Content-Length", str(len(body)))
            try:
                if len(body) <= PIECE_BYTES:
                    await self._finish_at_once(reader, body)
                else:
                    with self._watched(reader) as watch:
                        await self._send(body, watch)
                        await self.finish()
            except StreamClosedError:
                return
            run.delivered()

    async def stream(self, run: Run, *, model: str, include_usage: bool) -> None:
        """Answer with the run's events as they come.

        Until the head is out, an error is a plain answer with its status; after it,
        an error event, and the connection is cut.
        """
        encoder = openai.ChunkEncoder(
            run_id=run.id,
            created=int(run.created_at),
            model=model,
            include_usage=include_usage,
        )
        with self._answering(run) as reader:
            events = await self._before_head(run, reader)
            if reader.closed:
                self._auto_finish = False
                return
            self._set_stream_headers(run)
            with self._watched(reader) as watch:
                try:
                    await self._write_events(reader, encoder, events, watch)
                    await self.finish()
                except EdwinError as error:
                    await self._break_off(error, watch)
                    return
                except StreamClosedError:
                    self._auto_finish = False
                    return
            run.delivered()
            if self.request.version == "HTTP/1.0":
                # Without chunks, only the connection's end ends the answer.
                self.request.connection.stream.close()  # type: ignore[union-attr]

    @contextmanager
    def _answering(
        self, run: Run, after: int = 0, *, skips: bool = False
    ) -> Iterator[Reader]:
        """Read *run*, as long as the client is there; who leaves leaves the run."""
        connection = self.request.connection
        fd = None if self.client_left else connection.stream.socket.fileno()  # type: ignore[union-attr]
        self.gateway.answers.add(self)
        with run.events(after, skips=skips) as self.reader:
            if fd is not None:
                self.gateway.presence.add(fd, self.reader.close)
            try:
                yield self.reader
            finally:
                self.gateway.answers.discard(self)
                if fd is not None:
                    self.gateway.presence.discard(fd, self.reader.close)

    def _watched(self, reader: Reader) -> AbstractContextManager[Watch]:
        """Look after the writing while it lasts."""
        return watched(self, wake=reader.wake)

    async def _finish_at_once(self, reader: Reader, body: bytes) -> None:
        """Finish with *body*; nearly always the kernel takes it as it is."""
        finished = self.finish(body)
        if self.client_left:
            raise StreamClosedError
        if self.request.connection.stream.writing():  # type: ignore[union-attr]
            with self._watched(reader) as watch:
                watch.begin()
                await finished

    async def _send(self, data: bytes, watch: Watch) -> None:
        """Write *data*, in pieces, so that who reads slowly is seen to read."""
        await send(self, data, watch)

    async def _before_head(self, run: Run, reader: Reader) -> list[Event]:
        """Return the first events there are when the head is due.

        Raises:
            EdwinError: If the run failed before.

        """
        due = False

        def fall_due() -> None:
            nonlocal due
            due = True
            reader.wake()

        delay_s = self.config.gateway.http.head_delay_ms / 1000
        timer = asyncio.get_running_loop().call_later(delay_s, fall_due)
        events: list[Event] = []
        try:
            while not events and not reader.closed and not due:
                events = [
                    event
                    for event in await reader.next()
                    if not isinstance(event, _UNSEEN)
                ]
        finally:
            timer.cancel()
        if not reader.closed:
            await run.accepted()
        # What went wrong meanwhile still has its status.
        for event in (*events, run.end):
            if isinstance(event, RunFailed):
                raise event.error
        return events

    def _set_stream_headers(self, run: Run) -> None:
        self.set_run_headers(run)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Accel-Buffering", "no")
        # With Nagle on, a token every 3 ms arrives in bursts of 40.
        self.request.connection.stream.set_nodelay(True)  # type: ignore[union-attr]

    async def _write_events(
        self,
        reader: Reader,
        encoder: openai.ChunkEncoder,
        events: list[Event],
        watch: Watch,
    ) -> None:
        """Write the head and everything to the run's end.

        Raises:
            EdwinError: What the run failed with.
            StreamClosedError: If the client left.

        """
        data = encoder.head()
        while True:
            end = events[-1] if events else None
            # A client that comes back after a while has much to catch up on, and the
            # loop has others to serve.
            for start in range(0, len(events), SLICE):
                data += encoder.chunks(events[start : start + SLICE])
                if start + SLICE < len(events):
                    await self._send(data, watch)
                    data = b""
            if isinstance(end, RunFinished):
                data += encoder.end(end)
            if data:
                await self._send(data, watch)
            if isinstance(end, RunFinished):
                return
            if isinstance(end, RunFailed):
                raise end.error
            events = await reader.next()
            if reader.closed:
                raise StreamClosedError
            data = sse.PING if watch.idle() else b""

    async def _break_off(self, error: EdwinError, watch: Watch) -> None:
        """End a stream that failed: an error event, and no clean end."""
        self.code = error.code
        error.__traceback__ = None
        with suppress(StreamClosedError):
            await self._send(openai.error_event(error), watch)
        if self.request.version == "HTTP/1.0" and not self.client_left:
            await arrived(self.request.connection.stream)  # type: ignore[union-attr]
        self.cut()
