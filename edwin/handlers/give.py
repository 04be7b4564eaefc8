"""Give bytes of any number to a client that may not read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import orjson

from edwin.handlers.base import BaseHandler
from edwin.handlers.watch import Watch, unread

# So much waits for a client besides what the kernel holds.
PIECE_BYTES = 256 * 1024


async def give(handler: BaseHandler, value: Any) -> None:
    """Finish *handler*'s answer with *value*: bytes as they are, all else as JSON.

    Who takes nothing of a large body is cut off.

    Raises:
        StreamClosedError: If the client left, or was cut off.

    """
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    handler.set_header("Content-Length", str(len(body)))
    if len(body) <= PIECE_BYTES or handler.request.method == "HEAD":
        handler.finish(body)
        return
    with watched(handler) as watch:
        await send(handler, body, watch)
        await handler.finish()


@contextmanager
def watched(
    handler: BaseHandler, *, wake: Callable[[], None] | None = None
) -> Iterator[Watch]:
    """Look after what *handler* writes, while it lasts.

    Args:
        handler: Who writes.
        wake: Lets it send a sign of life; None: what it writes is one.

    """
    http = handler.config.gateway.http
    stream = getattr(handler.request.connection, "stream", None)
    watch = Watch(
        idle_s=http.keep_alive_seconds,
        stall_s=http.stall_seconds,
        wake=wake or _nothing,
        cut=handler.cut,
        unread=partial(unread, stream),
    )
    try:
        yield watch
    finally:
        watch.stop()


async def send(handler: BaseHandler, data: bytes, watch: Watch) -> None:
    """Write *data*, in pieces, and return when the kernel has it.

    Raises:
        StreamClosedError: If the client left, or was cut off.

    """
    for start in range(0, len(data), PIECE_BYTES):
        handler.write(data[start : start + PIECE_BYTES])
        watch.begin()
        await handler.flush()
        watch.end()


def _nothing() -> None:
    """Send no sign of life."""
