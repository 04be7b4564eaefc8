"""Messages as the store keeps them: JSON, with images and files apart.

Called when a change is made up and when a transcript is read.  An image comes again
with every request of a client that resends its history, so its data is kept once,
under its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from edwin.errors import InternalError
from edwin.types import Message

_PLACES = {"image_url": ("image_url", "url"), "file": ("file", "file_data")}


class Packed(NamedTuple):
    """A message ready to be stored.

    Attributes:
        body: The message as JSON text, empty strings where data was taken out.
        refs: JSON list of ``[index of the part, hex digest]``, or None.
        blobs: What was taken out, by digest.

    """

    body: str
    refs: str | None
    blobs: Mapping[bytes, bytes]


def pack(message: Message) -> Packed:
    """Return *message* as it is stored; the message itself is left as it is.

    Taken out are ``data:`` URLs of image parts and ``file_data`` of file parts.

    Raises:
        InternalError: If it cannot be written as JSON.

    """
    blobs: dict[bytes, bytes] = {}
    refs: list[tuple[int, str]] = []
    content = message.get("content")
    try:
        if isinstance(content, list):
            parts = content.copy()
            for index, part in enumerate(content):
                data = _data(part)
                if data is not None:
                    raw = data.encode()
                    digest = hashlib.sha256(raw).digest()
                    blobs[digest] = raw
                    refs.append((index, digest.hex()))
                    parts[index] = _with(part, "")
            if refs:
                message = {**message, "content": parts}
        body = orjson.dumps(message).decode()
    except (TypeError, ValueError) as error:
        raise InternalError("the message cannot be stored") from error
    return Packed(body, orjson.dumps(refs).decode() if refs else None, blobs)


def unpack(body: str, refs: str | None, blobs: Mapping[bytes, bytes]) -> Message:
    """Return the message that :func:`pack` took apart.

    Raises:
        KeyError: If *blobs* lacks one of :func:`digests` of *refs*.

    """
    message: Message = orjson.loads(body)
    content = message.get("content")
    if refs is not None and isinstance(content, list):
        for index, digest in orjson.loads(refs):
            data = blobs[bytes.fromhex(digest)].decode()
            content[index] = _with(content[index], data)
    return message


def digests(refs: Iterable[str | None]) -> set[bytes]:
    """Return the digests that the *refs* of some messages name."""
    return {
        bytes.fromhex(digest)
        for text in refs
        if text is not None
        for _, digest in orjson.loads(text)
    }


def _data(part: Any) -> str | None:
    """Return what of *part* is kept apart, or None."""
    if not isinstance(part, dict) or part.get("type") not in _PLACES:
        return None
    outer, inner = _PLACES[part["type"]]
    holder = part.get(outer)
    data = holder.get(inner) if isinstance(holder, dict) else None
    if not isinstance(data, str) or (outer == "image_url" and data[:5] != "data:"):
        return None
    return data


def _with(part: dict[str, Any], data: str) -> dict[str, Any]:
    """Return *part* with *data* where it keeps its data."""
    outer, inner = _PLACES[part["type"]]
    return {**part, outer: {**part[outer], inner: data}}
