"""Who is it, and may they: one function each, for every surface."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from edwin.addresses import Network, is_loopback, is_within
from edwin.audit import AuditLog, Source
from edwin.config import AuthConfig, NamedPrincipal
from edwin.errors import Forbidden, Unauthenticated
from edwin.limiter import FailureLimiter
from edwin.types import OWNER, SCOPES, Agent, Principal, SessionId

ACTIONS = SCOPES

PREFIX = b"edw_"
SECRET_CHARACTERS = 43
PROXY = "proxy:"
# What no token has; compared with where there is no such principal.
_NOBODY = bytes(32)
_USER = re.compile(r"[\x21-\x7e]{1,200}")


class Authenticator:
    """Tells who a request comes from.

    Args:
        config: ``gateway.auth``.
        token: The token that stands in for one the configuration does not have.
        proxies: Networks whose word on the user is taken, in mode trusted-proxy.
        audit: Is told of wrong secrets; None: nobody is.

    """

    def __init__(
        self,
        config: AuthConfig,
        *,
        token: str | None = None,
        proxies: Sequence[Network] = (),
        audit: AuditLog | None = None,
    ) -> None:
        self._audit = audit
        self._limiter = FailureLimiter(exempt_loopback=config.limiter.exempt_loopback)
        self._stored: Mapping[str, NamedPrincipal] = {}
        self.configure(config, token=token, proxies=proxies)

    def configure(
        self,
        config: AuthConfig,
        *,
        token: str | None = None,
        proxies: Sequence[Network] = (),
    ) -> None:
        """Go by *config* from the next request on; see the class."""
        self.mode = config.mode
        self.user_header = config.user_header
        self._proxies = proxies
        self._proxied = config.proxy_principal
        secret = config.password if config.mode == "password" else config.token or token
        # Digests are compared, so that the time tells nothing of a length either.
        self._digest = hashlib.sha256(secret.encode()).digest() if secret else None
        self._configured = {named.principal.id: named for named in config.principals}

    def use(self, stored: Iterable[NamedPrincipal]) -> None:
        """Go by these principals of the store from the next request on."""
        self._stored = {named.principal.id: named for named in stored}

    def named(self, id: str) -> NamedPrincipal | None:
        """Return the principal with this id that has a token of its own, or None."""
        return self._configured.get(id) or self._stored.get(id)

    def configured(self) -> Iterable[NamedPrincipal]:
        """Return the principals of the configuration."""
        return self._configured.values()

    def stored(self) -> Iterable[NamedPrincipal]:
        """Return the principals of the store."""
        return self._stored.values()

    def holds(self, principal: Principal, digest: bytes) -> bool:
        """Return whether *principal* is still let in with the secret of this *digest*.

        A principal that a proxy named has no secret.
        """
        if principal.id.startswith(PROXY):
            return self.mode == "trusted-proxy"
        if principal.id == OWNER.id:
            return self.mode == "none" or digest == self._digest
        named = self.named(principal.id)
        return (
            named is not None
            and named.digest == digest
            and not _expired(named.principal)
        )

    def by_headers(
        self,
        headers: Mapping[str, str],
        address: str,
        request_id: str | None = None,
        *,
        peer: str = "",
    ) -> tuple[Principal, bytes]:
        """Return the principal of a request, and the digest of its secret.

        Args:
            headers: The request's, as Tornado gives them (latin-1 text).
            address: Where the request comes from.
            request_id: Its id, for the audit log.
            peer: Address of the other end of the connection.

        Raises:
            Unauthenticated: If there is no bearer token, or a wrong one; or if no
                trusted proxy says who the user is.
            TooManyFailures: If too many wrong ones came from *address*.

        """
        if self.mode == "none":
            return OWNER, b""
        if self.mode == "trusted-proxy":
            return self._by_proxy(headers.get(self.user_header), peer), b""
        authorization = headers.get("Authorization")
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
        return self.by_secret(given, address, request_id)

    def by_secret(
        self, secret: bytes, address: str, request_id: str | None = None
    ) -> tuple[Principal, bytes]:
        """Return the principal whose secret this is, and the secret's digest.

        *address* and *request_id* are as for :meth:`by_headers`.

        Raises:
            Unauthenticated: If it is nobody's.
            TooManyFailures: If too many wrong ones came from *address*.

        """
        given = hashlib.sha256(secret).digest()
        now = time.monotonic()
        self._limiter.check(address, given, now)
        principal = self._whose(secret, given)
        if principal is not None:
            self._limiter.succeeded(address, given, now)
            return principal, given
        if secret:
            self._refused(self._limiter.failed(address, now), address, request_id)
        raise Unauthenticated("Incorrect API key provided.")

    def _whose(self, secret: bytes, given: bytes) -> Principal | None:
        if secret.startswith(PREFIX):
            id = secret[len(PREFIX) : -SECRET_CHARACTERS - 1].decode("latin-1")
            named = self.named(id)
            digest = named.digest if named else _NOBODY
            if hmac.compare_digest(given, digest) and named:
                return None if _expired(named.principal) else named.principal
        if self._digest and secret and hmac.compare_digest(given, self._digest):
            return OWNER
        return None

    def _by_proxy(self, user: str | None, peer: str) -> Principal:
        """Return the principal that a trusted proxy names."""
        if user is None or not is_within(peer, self._proxies):
            raise Unauthenticated(
                f"no trusted proxy said who you are ({self.user_header})"
            )
        if not _USER.fullmatch(user):
            raise Unauthenticated(
                f"{self.user_header} must be 1 to 200 visible ASCII characters"
            )
        return replace(self._proxied, id=PROXY + user)

    def _refused(self, shut_out: bool, address: str, request_id: str | None) -> None:
        """Tell of a wrong secret, and of an address that is shut out for it."""
        if self._audit is not None:
            source = Source(None, address, request_id)
            self._audit.count("auth.failed", source)
            if shut_out:
                self._audit.count("auth.locked_out", source)


def new_token(id: str) -> tuple[str, bytes]:
    """Return a fresh token for principal *id*, and its digest."""
    token = f"{PREFIX.decode()}{id}_{secrets.token_urlsafe(32)}"
    return token, hashlib.sha256(token.encode()).digest()


def allow(principal: Principal, action: str, resource: Any = None) -> None:
    """Return if *principal* may do *action* to *resource*.

    Args:
        principal: Who asks.
        action: One of :data:`ACTIONS`.
        resource: An agent, where the action is done with one.

    Raises:
        Forbidden: If not.

    """
    if action not in principal.scopes:
        raise Forbidden(f"this token may not do that: it lacks the scope {action}")
    if isinstance(resource, Agent) and not may_use(principal, resource):
        raise Forbidden(f"this token may not use the agent {resource.id!r}")


def may_use(principal: Principal, agent: Agent) -> bool:
    """Return whether *principal* may have answers from *agent*."""
    if principal.agents is not None and agent.id not in principal.agents:
        return False
    return _fits(principal, agent.model)


def within(principal: Principal, agent: Agent) -> Agent:
    """Return *agent* without the fallbacks and tools that *principal* may not use."""
    if principal.tools is not None:
        agent = replace(agent, tool_access=agent.tool_access.narrowed(principal.tools))
    if principal.models is None or all(_fits(principal, m) for m in agent.fallbacks):
        return agent
    fallbacks = tuple(m for m in agent.fallbacks if _fits(principal, m))
    return replace(agent, fallbacks=fallbacks)


def owns(principal: Principal, session: SessionId) -> bool:
    """Return whether *session*, and the runs in it, are there for *principal*.

    Those of another are as if they were not there, save for the owner.
    """
    return principal.id in (session.principal, OWNER.id)


def check_place(mode: str, headers: Mapping[str, str]) -> None:
    """Refuse what a page under a rebound name could send to a gateway without auth.

    In mode ``none`` the request's Host must be a loopback one.

    Raises:
        Forbidden: If it is not.

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


def _fits(principal: Principal, model: str) -> bool:
    patterns = principal.models
    return patterns is None or any(fnmatchcase(model, p) for p in patterns)


def _expired(principal: Principal) -> bool:
    return principal.expires_at is not None and principal.expires_at <= time.time()
