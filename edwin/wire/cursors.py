"""Cursors: where a list goes on, as text that means nothing to a client; pure."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import orjson

from edwin.errors import InvalidRequest


def write(at: float, name: str) -> str:
    """Return the cursor of the place (*at*, *name*); it needs no quoting in a URL."""
    return urlsafe_b64encode(orjson.dumps([at, name])).rstrip(b"=").decode()


def read(cursor: str, *, param: str = "after") -> tuple[float, str]:
    """Return the place that *cursor* was made of.

    Raises:
        InvalidRequest: If it is none of ours.

    """
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        at, name = orjson.loads(text)
    except (ValueError, TypeError):
        at = name = None
    if isinstance(at, float) and isinstance(name, str):
        return at, name
    raise InvalidRequest(
        f"'{param}' is not a cursor; take what an earlier page gave as 'next'",
        param=param,
        code="invalid_value",
    )
