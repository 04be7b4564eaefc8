"""Give a body of any size, to a client that may not read it."""

from __future__ import annotations

from typing import Any

import orjson

from edwin.handlers.base import BaseHandler
from edwin.handlers.watch import Watch

# Each is to be read within gateway.http.stallSeconds.
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
    http = handler.config.gateway.http
    watch = Watch(
        idle_s=http.stall_seconds,
        stall_s=http.stall_seconds,
        wake=_nothing,
        cut=handler.cut,
    )
    try:
        for start in range(0, len(body), PIECE_BYTES):
            handler.write(body[start : start + PIECE_BYTES])
            watch.begin()
            await handler.flush()
            watch.end()
        await handler.finish()
    finally:
        watch.stop()


def _nothing() -> None:
    """Send no sign of life: the body itself is one."""
