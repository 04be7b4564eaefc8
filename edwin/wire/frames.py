"""WebSocket frames: the answers to a client's requests; pure."""

from __future__ import annotations

from typing import Any

import orjson

from edwin.errors import EdwinError, envelope


def response(id: str, payload: dict[str, Any]) -> bytes:
    """Return the frame that answers request *id* with *payload*."""
    return orjson.dumps({"type": "res", "id": id, "ok": True, "payload": payload})


def failure(id: str | None, error: EdwinError) -> bytes:
    """Return the frame that tells request *id*, if it had one, what went wrong."""
    return orjson.dumps({"type": "res", "id": id, "ok": False, **envelope(error)})
