"""``GET /v1/runs/{id}/events``: a run's events from a place on, live to its end."""

from __future__ import annotations

from collections.abc import Sequence

from tornado.iostream import StreamClosedError

from edwin import ledger
from edwin.errors import InvalidRequest
from edwin.handlers import query
from edwin.handlers.answer import SLICE, RunHandler
from edwin.handlers.give import give
from edwin.handlers.watch import Watch
from edwin.runs.reader import Reader
from edwin.runs.run import Run
from edwin.types import Event, KeptRun
from edwin.wire import events, sse

LAST_EVENT_HEADER = "Last-Event-ID"


class RunEventsHandler(RunHandler):
    """Answer ``GET /v1/runs/{id}/events``."""

    route = "/v1/runs/{id}/events"
    action = "runs:read"

    async def get(self, run_id: str) -> None:
        """Give the events from where the client was."""
        assert self.principal is not None
        param, after = self._after()
        found = await ledger.find(self.gateway, self.principal, run_id)
        if isinstance(found, KeptRun):
            await self._past(found, param, after)
            return
        _check(param, after, found.last)
        self._set_event_headers(found.id)
        # With Nagle on, a token every 3 ms arrives in bursts of 40.
        if not self.client_left:
            self.request.connection.stream.set_nodelay(True)  # type: ignore[union-attr]
        with (
            self._answering(found, after, skips=True) as reader,
            self._watched(reader) as watch,
        ):
            try:
                await self._follow(found, reader, watch)
                await self.finish()
            except StreamClosedError:
                self._auto_finish = False
                return
        if self.request.version == "HTTP/1.0":
            # Without chunks, only the connection's end ends the answer.
            self.request.connection.stream.close()  # type: ignore[union-attr]

    def _after(self) -> tuple[str, int]:
        """Return what says where the client was, and the number; 0: nowhere.

        A browser repeats the URL that it began with, and says the rest in a header.
        """
        after = query.number(self, "after")
        if after is not None:
            return "after", after
        value = self.header(LAST_EVENT_HEADER)
        return LAST_EVENT_HEADER, query.whole(value, LAST_EVENT_HEADER) if value else 0

    async def _past(self, kept: KeptRun, param: str, after: int) -> None:
        """Give what is left of the events of a run that is over."""
        end = await ledger.end(self.gateway, kept)
        run_id = kept.record.run_id
        last = ledger.last_event(kept.record, seen=after)
        _check(param, after, last)
        data = b""
        if after < last - 1:
            data += events.line(events.gap(run_id=run_id, after=after, upto=last - 1))
        if after < last:
            data += _encoded([end], run_id, last)
        self._set_event_headers(run_id)
        await give(self, data)

    async def _follow(self, run: Run, reader: Reader, watch: Watch) -> None:
        """Write the head and everything to the run's end.

        Raises:
            StreamClosedError: If the client left.

        """
        if reader.place == run.last and not run.ended:
            # Nothing to tell yet; the head alone is news too.
            await self._send(sse.PING, watch)
        while not (run.ended and reader.place == run.last):
            after = reader.place
            if reader.skip():
                gone = events.gap(run_id=run.id, after=after, upto=reader.place)
                await self._send(events.line(gone), watch)
            number = reader.place + 1
            batch = await reader.next()
            if reader.closed:
                raise StreamClosedError
            if not batch and watch.idle():
                await self._send(sse.PING, watch)
            for start in range(0, len(batch), SLICE):
                some = batch[start : start + SLICE]
                await self._send(_encoded(some, run.id, number + start), watch)

    def _set_event_headers(self, run_id: str) -> None:
        self.set_header("x-edwin-run-id", run_id)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Accel-Buffering", "no")


def _check(param: str, after: int, last: int) -> None:
    if after > last:
        raise InvalidRequest(
            f"'{param}' is {after}, but the run's last event is {last}",
            param=param,
            code="invalid_value",
        )


def _encoded(batch: Sequence[Event], run_id: str, number: int) -> bytes:
    """Return the lines of *batch*, the first of which is event *number*."""
    return b"".join(
        events.line(events.document(event, run_id=run_id, number=place))
        for place, event in enumerate(batch, number)
    )
