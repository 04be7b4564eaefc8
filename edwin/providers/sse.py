"""Cuts the bytes of an answer into the documents in it; knows no socket."""

from __future__ import annotations

import orjson

_BOM = b"\xef\xbb\xbf"
# What a block of lines may begin with that is no stream of events.
_NO_FIELD = b"{\n" + _BOM
_FIELDS = (b"data", b"event", b"id", b"retry", b"")  # and comments
_SHOWN_BYTES = 200


class TooLong(ValueError):
    """An event, or a whole answer, has more bytes than a sensible one."""


class EventSplitter:
    """Collects bytes and gives back the data of each event that is complete.

    However the same bytes are cut, the same events come out.  Lines may end in LF,
    CRLF or CR; comments, other fields and events without data are skipped.  An event
    of the name ``error`` whose data is no error object is made one.

    What is no such stream is given as it stands: JSON documents, one in each line or
    one in all; text, where nothing else comes.

    Args:
        max_bytes: How long an event may be before :meth:`feed` refuses to go on.

    """

    def __init__(self, max_bytes: int = 8 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._after_cr = False
        # Whether the rest begins with a document of several lines.
        self._in_document = False
        # The first text that is no stream of events; None once there was an event.
        self._stray: bytes | None = b""

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
            by_line = self._rest[0] in _NO_FIELD and not self._in_document
            if self._rest.find(b"\n" if by_line else b"\n\n", start) < 0:
                return []
            data = bytes(self._rest)
        blocks = data.split(b"\n\n")
        rest = blocks.pop()
        payloads = self._payloads(blocks)
        if rest and rest[0] in _NO_FIELD:
            rest = _take_documents(rest, payloads)
            self._in_document = b"\n" in rest
        self._rest = bytearray(rest)
        if payloads:
            self._stray = None
        return payloads

    def finish(self) -> list[bytes]:
        """Return the data of the event that the end of the stream left open.

        Real servers leave out the blank line after the last event.
        """
        rest, self._rest = bytes(self._rest), bytearray()
        payloads = self._payloads([rest])
        if self._stray and not payloads:
            payloads.append(self._stray)
        self._stray = None
        return payloads

    def _payloads(self, blocks: list[bytes]) -> list[bytes]:
        payloads: list[bytes] = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                payload = block[6:]
            else:
                if block and block[0] in _NO_FIELD:
                    block = _take_documents(block, payloads, last=True)
                payload = self._data(block)
            if payload:
                payloads.append(payload)
        return payloads

    def _data(self, block: bytes) -> bytes:
        lines = []
        event = b""
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"data":
                lines.append(value.removeprefix(b" "))
            elif name == b"event":
                event = value
            elif name == b"error":
                # llama.cpp's own way of it, once.
                event = name
                lines.append(value.removeprefix(b" "))
        if not lines:
            if self._stray == b"" and _is_stray(block):
                self._stray = block[:_SHOWN_BYTES]
            return b""
        data = b"\n".join(lines)
        return _error(data) if event.strip() == b"error" and data else data

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
        """Return the body, and ``[DONE]``: nothing can follow it.

        A body that turns out to be a stream of events gives those.
        """
        body = bytes(self._body).lstrip(_BOM)
        if body.lstrip().startswith((b"data:", b"event:", b":")):
            stream = EventSplitter(self._max_bytes)
            return [*stream.feed(body), *stream.finish()]
        return [body, b"[DONE]"]


def _is_stray(block: bytes) -> bool:
    names = [line.partition(b":")[0] for line in block.split(b"\n") if line]
    return bool(names) and not any(name in _FIELDS for name in names)


def _take_documents(
    block: bytes, payloads: list[bytes], *, last: bool = False
) -> bytes:
    """Move the JSON documents that *block* begins with to *payloads*; return the rest.

    Each stands in a line of its own, or one is all there is.

    Args:
        last: Whether nothing can follow in the block.

    """
    lines = block.split(b"\n")
    for place, line in enumerate(lines):
        lines[place] = line = line.lstrip(_BOM)
        is_document = line.startswith(b"{")
        is_whole = line.endswith(b"}") and (last or place < len(lines) - 1)
        if is_document and is_whole:
            payloads.append(line)
        elif line:
            rest = b"\n".join(lines[place:])
            if not (is_document and last):
                return rest
            payloads.append(rest)
            break
    return b""


def _error(data: bytes) -> bytes:
    """Return *data*, which is said to be an error, as an error object."""
    if b'"error"' in data:
        return data
    if not data.startswith(b"{"):
        data = orjson.dumps(data.decode("utf-8", "replace"))
    return b'{"error":%s}' % data
