"""When two request bodies ask for the same; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

# They say how the answer is given, not what is asked.
_HOW = frozenset(("stream", "stream_options"))


def fingerprint(document: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of *document* in canonical JSON, streamed or not."""
    asked = {name: value for name, value in document.items() if name not in _HOW}
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).digest()
