"""Who is it, and may they: one function each, for every surface."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from edwin.addresses import is_loopback
from edwin.config import AuthConfig
from edwin.errors import Forbidden, Unauthenticated
from edwin.limiter import FailureLimiter
from edwin.types import OWNER, Principal

ACTIONS = (
    *("runs:create", "runs:read", "runs:cancel", "sessions:read", "sessions:write"),
    *("models:read", "metrics:read", "admin"),
)


class Authenticator:
    """Tells who a request comes from.

    Args:
        config: ``gateway.auth``.
        token: The token that stands in for one the configuration does not have.

    """

    def __init__(self, config: AuthConfig, *, token: str | None = None) -> None:
        self.mode = config.mode
        secret = config.password if config.mode == "password" else config.token or token
        # Digests are compared, so that the time tells nothing of a length either.
        self._digest = hashlib.sha256(secret.encode()).digest() if secret else None
        self._limiter = FailureLimiter(exempt_loopback=config.limiter.exempt_loopback)

    def by_headers(self, authorization: str | None, address: str) -> Principal:
        """Return the principal of a request by its ``Authorization`` header.

        Args:
            authorization: The header's value as Tornado gives it (latin-1 text), or
                None without one.
            address: Where the request comes from.

        Raises:
            Unauthenticated: If there is no bearer token, or a wrong one.
            TooManyFailures: If too many wrong ones came from *address*.

        """
        if self.mode == "none":
            return OWNER
        if not authorization:
            raise Unauthenticated(
                "You didn't provide an API key. Send the gateway's secret in an "
                "Authorization header: 'Authorization: Bearer <token>'."
            )
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("The Authorization header must be 'Bearer <token>'.")
        # As bytes: in latin-1 text, the last byte of some letters is a blank.
        given = secret.encode("latin-1", "replace").strip(b" \t")
        return self.by_secret(given, address)

    def by_secret(self, secret: bytes, address: str) -> Principal:
        """Return the principal whose secret this is.

        Raises:
            Unauthenticated: If it is nobody's.
            TooManyFailures: If too many wrong ones came from *address*.

        """
        given = hashlib.sha256(secret).digest()
        now = time.monotonic()
        self._limiter.check(address, given, now)
        if self._digest and secret and hmac.compare_digest(given, self._digest):
            self._limiter.succeeded(address, given, now)
            return OWNER
        if secret:
            self._limiter.failed(address, now)
        raise Unauthenticated("Incorrect API key provided.")


def allow(principal: Principal, action: str, resource: Any = None) -> None:
    """Return if *principal* may do *action* to *resource*.

    Raises:
        Forbidden: If not.

    """
    if principal.id != OWNER.id:
        raise Forbidden(f"{principal.id} may not do {action}")


def check_place(mode: str, headers: Mapping[str, str], scheme: str) -> None:
    """Refuse what a foreign page in a browser could send to a gateway without auth.

    In mode ``none`` the request's Host must be a loopback one (a rebound name is
    not), and its Origin, if it has one, must be the gateway's own.

    Raises:
        Forbidden: If the request comes from elsewhere.

    """
    if mode != "none":
        return
    host = headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if not is_loopback(name):
        raise Forbidden("without authentication, Host must be a loopback address")
    origin = headers.get("Origin")
    if origin is not None and origin.lower() != f"{scheme}://{host}".lower():
        raise Forbidden("without authentication, Origin must be the gateway's own")
