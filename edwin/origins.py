"""Origins: which web pages may use the gateway, and what their browsers are told; pure.

A browser says in ``Origin`` whose page sends a request.  Without that header there is
no page behind it, or one of the gateway's own that only reads.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

METHODS = "GET, HEAD, POST, DELETE"
# The star stands for every header but Authorization; older browsers know names alone.
REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, x-edwin-agent-id, "
    "x-edwin-session-key, x-edwin-timeout-ms, traceparent, *"
)
ANSWER_HEADERS = ", ".join(
    (
        *("x-request-id", "x-edwin-run-id", "x-edwin-agent-id", "x-edwin-session-key"),
        *("x-edwin-replayed", "x-should-retry", "Retry-After", "Location"),
        *("Server-Timing", "WWW-Authenticate"),
        *("x-ratelimit-limit-requests", "x-ratelimit-limit-tokens"),
        *("x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"),
        *("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"),
    )
)
# The answer to a page is decided anew with each request; this is only what may be sent.
PREFLIGHT_SECONDS = 3600

PREFLIGHT: Mapping[str, str] = MappingProxyType(
    {
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": REQUEST_HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
)

_DEFAULT_PORTS = MappingProxyType({"http": ":80", "https": ":443"})
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@,\s]+)")


def normal(origin: str) -> str:
    """Return *origin* as browsers write it: lower case, no port that goes without."""
    origin = origin.lower()
    scheme = origin.partition(":")[0]
    return origin.removesuffix(_DEFAULT_PORTS.get(scheme, "\0"))


def is_foreign(
    origin: str | None,
    *,
    schemes: Collection[str],
    host: str | None,
    allowed: Collection[str],
) -> bool:
    """Return whether a request comes from a page that may not send it.

    Args:
        origin: The request's ``Origin``, or None without one; ``null`` is foreign.
        schemes: What a page of the gateway's own may have come by.
        host: The request's ``Host``, or None.
        allowed: Other pages' origins that may, as :func:`normal` gives them.

    """
    if origin is None:
        return False
    origin = normal(origin)
    if origin in allowed:
        return False
    match = _ORIGIN.fullmatch(origin)
    if match is None or not host:
        return True
    return match[1] not in schemes or origin != normal(f"{match[1]}://{host}")
