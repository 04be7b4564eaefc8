"""Principals with tokens of their own: made, listed, given new tokens, revoked.

Called for every surface that does so.  What a function returns is the document that the
client gets.  Principals of the configuration are listed with the others, and changed
there alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from edwin.audit import Source
from edwin.auth import new_token
from edwin.config import NamedPrincipal, as_principal
from edwin.errors import InvalidRequest, TokenNotFound, shorten
from edwin.store import StoredPrincipal
from edwin.types import Principal

if TYPE_CHECKING:
    from edwin.gateway import Gateway


async def load(gateway: Gateway) -> None:
    """Let in those that the store has, from the next request on.

    Raises:
        StorageUnavailable: If the store cannot be read.

    """
    stored = await gateway.store.principals()
    gateway.authenticator.use([_named(kept) for kept in stored])


async def create(
    gateway: Gateway, document: Mapping[str, Any], source: Source
) -> dict[str, Any]:
    """Make a principal; the answer has its token, once: schema ``tokens/token``.

    Args:
        gateway: That it may use.
        document: What it may do: schema ``tokens/create``.
        source: Who asked for it, for the audit log.

    Raises:
        InvalidRequest: If the id is taken, or a value cannot be used.
        StorageUnavailable: If it cannot be kept.

    """
    id = document["id"]
    if id == "owner" or gateway.authenticator.named(id):
        raise InvalidRequest(
            f"the id {id!r} is taken; use another, or rotate its token",
            param="id",
            code="invalid_value",
        )
    rest = {name: value for name, value in document.items() if name != "id"}
    try:
        as_principal(id, rest)
    except ValueError:
        raise InvalidRequest(
            "'expiresAt' is no day or time; use such as 2027-01-31",
            param="expiresAt",
            code="invalid_value",
        ) from None
    return await _keep(gateway, id, rest, "token.created", source)


async def rotate(gateway: Gateway, id: str, source: Source) -> dict[str, Any]:
    """Give the principal a new token; the old one is nobody's at once.

    Raises:
        TokenNotFound: If there is no such principal, or the configuration has it.
        StorageUnavailable: If the new one cannot be kept.

    """
    kept = await _kept(gateway, id)
    rest = orjson.loads(kept.document)
    return await _keep(gateway, id, rest, "token.rotated", source)


async def revoke(gateway: Gateway, id: str, source: Source) -> dict[str, Any]:
    """Let the principal in no more; what it has open is ended.

    Raises:
        TokenNotFound: If there is no such principal, or the configuration has it.
        StorageUnavailable: If that cannot be kept.

    """
    await _kept(gateway, id)
    await gateway.store.remove_principal(id)
    await load(gateway)
    gateway.audit.write("token.revoked", source, token=id)
    gateway.enforce()
    return {"object": "edwin.token.revoked", "id": id, "revoked": True}


def page(gateway: Gateway) -> dict[str, Any]:
    """Return all principals with tokens: schema ``tokens/token_list``."""
    auth = gateway.authenticator
    data = [
        *(_object(named.principal, "configuration") for named in auth.configured()),
        *(_object(named.principal, "store") for named in auth.stored()),
    ]
    return {"object": "list", "data": data}


async def _kept(gateway: Gateway, id: str) -> StoredPrincipal:
    for kept in await gateway.store.principals():
        if kept.id == id:
            return kept
    raise TokenNotFound(
        f"no token is called {shorten(id)!r}, or it is the configuration's"
    )


async def _keep(
    gateway: Gateway, id: str, rest: Mapping[str, Any], event: str, source: Source
) -> dict[str, Any]:
    token, digest = new_token(id)
    kept = StoredPrincipal(id, orjson.dumps(rest).decode(), digest, time.time())
    await gateway.store.put_principal(kept)
    await load(gateway)
    gateway.audit.write(event, source, token=id)
    gateway.enforce()
    return _object(_named(kept).principal, "store") | {"token": token}


def _named(kept: StoredPrincipal) -> NamedPrincipal:
    principal = as_principal(kept.id, orjson.loads(kept.document))
    return NamedPrincipal(principal, kept.digest)


def _object(principal: Principal, origin: str) -> dict[str, Any]:
    limits = principal.limits
    expires = principal.expires_at
    return {
        "object": "edwin.token",
        "id": principal.id,
        "origin": origin,
        "scopes": sorted(principal.scopes),
        "agents": None if principal.agents is None else sorted(principal.agents),
        "models": None if principal.models is None else list(principal.models),
        "tools": None if principal.tools is None else list(principal.tools),
        "limits": {
            "requestsPerMinute": limits.requests_per_minute,
            "concurrentRuns": limits.concurrent_runs,
            "tokensPerDay": limits.tokens_per_day,
        },
        "expires_at": expires,
        "expires": expires and datetime.fromtimestamp(expires, UTC).isoformat(),
        "token": None,
    }
