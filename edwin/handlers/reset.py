"""End a connection with a reset, where a close would pass as an answer's end."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios

from tornado.iostream import IOStream

ARRIVAL_S = 1.0
_STEP_S = 0.01
_NO_LINGER = struct.pack("ii", 1, 0)


async def arrived(stream: IOStream) -> None:
    """Wait until what was written has arrived; a second at most.

    A reset throws away what is still on its way.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + ARRIVAL_S
    while _unsent(stream) and loop.time() < end:
        await asyncio.sleep(_STEP_S)


def reset(stream: IOStream) -> None:
    """Close *stream* with a reset."""
    if stream.socket is not None:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    stream.close()


def _unsent(stream: IOStream) -> int:
    if stream.socket is None:
        return 0
    try:
        count = fcntl.ioctl(stream.socket, termios.TIOCOUTQ, bytes(4))
    except OSError:
        # Not every system tells.
        return 0
    return int(struct.unpack("i", count)[0])
