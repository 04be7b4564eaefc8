"""Principals as a configuration, or the store, gives them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edwin.types import Allowance, Principal


def principal(id: str, item: Mapping[str, Any]) -> Principal:
    """Return the principal *id* that *item* describes, in the shape of the file."""
    agents, models, tools = (item.get(k) for k in ("agents", "models", "tools"))
    limits = item.get("limits") or {}
    expires_at = item.get("expiresAt")
    return Principal(
        id=id,
        scopes=frozenset(item["scopes"]),
        agents=None if agents is None else frozenset(a.lower() for a in agents),
        models=None if models is None else tuple(models),
        tools=None if tools is None else tuple(tools),
        limits=Allowance(
            limits.get("requestsPerMinute"),
            limits.get("concurrentRuns"),
            limits.get("tokensPerDay"),
        ),
        expires_at=None if expires_at is None else unix_seconds(expires_at),
    )


def unix_seconds(text: str) -> float:
    """Return when *text* is: ``2027-01-31`` or ``2027-01-31T12:00:00Z``, UTC.

    Raises:
        ValueError: If there is no such day or time.

    """
    return datetime.fromisoformat(text.rstrip("Z")).replace(tzinfo=UTC).timestamp()


def token_digest(text: str) -> bytes:
    """Return the digest in ``sha256:<64 hex digits>``."""
    return bytes.fromhex(text.removeprefix("sha256:"))
