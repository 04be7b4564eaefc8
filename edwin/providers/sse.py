"""Cuts the bytes of an answer into the documents in it; knows no socket."""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class TooLong(ValueError):
    """An event, or a whole answer, has more bytes than a sensible one."""


class EventSplitter:
    """Collects bytes and gives back the data of each event that is complete.

    However the same bytes are cut, the same events come out.  Lines may end in LF,
    CRLF or CR; comments, other fields and events without data are skipped.

    Args:
        max_bytes: How long an event may be before :meth:`feed` refuses to go on.

    """

    def __init__(self, max_bytes: int = 8 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take in *data* and return the data of the events it completed, in order.

        Raises:
            TooLong: If the event under way is longer than *max_bytes*.

        """
        if len(self._rest) > self._max_bytes:
            raise TooLong(f"an event is longer than {self._max_bytes} bytes")
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        if self._rest:
            # Only the new bytes are searched: an event that comes in a thousand
            # pieces must not be read a thousand times.
            start = len(self._rest) - 1
            self._rest += data
            if self._rest.find(b"\n\n", start) < 0:
                return []
            data = bytes(self._rest)
        blocks = data.split(b"\n\n")
        self._rest = bytearray(blocks.pop())
        return _payloads(blocks)

    def finish(self) -> list[bytes]:
        """Return the data of the event that the end of the stream left open.

        Real servers leave out the blank line after the last event.
        """
        rest, self._rest = bytes(self._rest), bytearray()
        return _payloads([rest])

    def _with_lf(self, data: bytes) -> bytes:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        self._after_cr = self._after_cr or data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class WholeBody:
    """Takes bytes as an :class:`EventSplitter` does, for an answer that is one JSON.

    Args:
        max_bytes: How long it may be before :meth:`feed` refuses to go on.

    """

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._body = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take in *data*; nothing is complete before the end.

        Raises:
            TooLong: If there are more than *max_bytes*.

        """
        self._body += data
        if len(self._body) > self._max_bytes:
            raise TooLong(f"the answer is longer than {self._max_bytes} bytes")
        return []

    def finish(self) -> list[bytes]:
        """Return the body, and ``[DONE]``: nothing can follow it."""
        return [bytes(self._body), b"[DONE]"]


def _payloads(blocks: list[bytes]) -> list[bytes]:
    payloads = []
    for block in blocks:
        if block.startswith(b"data: ") and b"\n" not in block:
            payload = block[6:]
        else:
            payload = _data(block)
        if payload:
            payloads.append(payload)
    return payloads


def _data(block: bytes) -> bytes:
    lines = []
    for line in block.removeprefix(_BOM).split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines)
