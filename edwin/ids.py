"""Names for requests and runs that no other has."""

from __future__ import annotations

import os


def new_id(kind: str) -> str:
    """Return ``<kind>_`` and 32 hex digits: 128 random bits."""
    return f"{kind}_{os.urandom(16).hex()}"
