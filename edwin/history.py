"""Sessions as they are shown, deleted and begun anew.

Called for every surface that does so.  What a function returns is the document that the
client gets.  A session of an agent that is configured no more is like any other.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson

from edwin.audit import NOBODY, Source
from edwin.auth import owns
from edwin.errors import EdwinError, RunCancelled, SessionNotFound
from edwin.types import OWNER, Principal, SessionId, StoredMessage
from edwin.wire import cursors, records

if TYPE_CHECKING:
    from edwin.gateway import Gateway

PAGE_BYTES = 4 * 1024 * 1024
"""A page of a transcript ends with the message that makes it longer than this."""

_BATCH = 10


def session_id(
    principal: Principal, agent: str, key: str, of: str | None = None
) -> SessionId:
    """Return the identity of a session; it need not be there.

    Args:
        principal: Who asks.
        agent: Id of its agent, in any case.
        key: Its key.
        of: Whose it is; None: *principal*'s own.

    Raises:
        SessionNotFound: If it would be another's.

    """
    session = SessionId(of or principal.id, agent.lower(), key)
    if not owns(principal, session):
        raise _not_found(session)
    return session


async def page(
    gateway: Gateway,
    principal: Principal,
    *,
    agent: str | None = None,
    limit: int = 20,
    after: str | None = None,
) -> dict[str, Any]:
    """Return a page of the principal's sessions: schema ``sessions/session_list``.

    The ones used last come first.

    Args:
        gateway: Whose sessions.
        principal: Sees its own sessions; the owner sees all.
        agent: Id of their agent, in any case; None: whichever.
        limit: How many at most.
        after: What an earlier page gave as ``next``.

    Raises:
        InvalidRequest: If *after* is no cursor.
        StorageUnavailable: If the store cannot be read.

    """
    found = await gateway.store.sessions(
        principal=None if principal.id == OWNER.id else principal.id,
        agent=agent and agent.lower(),
        before=cursors.read(after) if after else None,
        limit=limit + 1,
    )
    more = len(found) > limit
    found = found[:limit]
    next = cursors.write(*gateway.store.place(found[-1])) if more else None
    data = [records.session_object(record) for record in found]
    return {"object": "list", **records.page(data, next)}


async def transcript(
    gateway: Gateway,
    session: SessionId,
    *,
    after: int = 0,
    limit: int = 20,
    superseded: bool = False,
) -> dict[str, Any]:
    """Return a session with a page of its messages: schema ``sessions/transcript``.

    Args:
        gateway: Whose session.
        session: Which one.
        after: Number of the message that the page begins behind.
        limit: How many messages at most; fewer than that where they are long.
        superseded: Whether those that are no part of the transcript are shown too.

    Raises:
        SessionNotFound: If there is none.
        StorageUnavailable: If the store cannot be read.

    """
    record = await gateway.store.session(session)
    if record is None:
        raise _not_found(session)
    found, more = await _messages(gateway, session, after, limit, superseded)
    data = [records.message_object(message) for message in found]
    next = found[-1].seq if more else None
    return {**records.session_object(record), **records.page(data, next)}


async def _messages(
    gateway: Gateway, session: SessionId, after: int, limit: int, superseded: bool
) -> tuple[list[StoredMessage], bool]:
    """Return a page of messages, and whether there are more behind it."""
    found: list[StoredMessage] = []
    size = 0
    while True:
        batch = await gateway.store.messages(
            session, after=after, limit=_BATCH, superseded=superseded
        )
        for message in batch:
            if len(found) == limit or size > PAGE_BYTES:
                return found, True
            found.append(message)
            size += len(orjson.dumps(message.message))
        if len(batch) < _BATCH:
            return found, False
        after = batch[-1].seq


async def delete(
    gateway: Gateway, session: SessionId, source: Source = NOBODY
) -> dict[str, Any]:
    """Delete a session and return when nothing of it is left: ``sessions/deleted``.

    Its runs that are under way or wait are cancelled first.  In the ledger their lines
    stay, without what identifies the session; the audit log does not name it either.

    Args:
        gateway: Whose session.
        session: Which one.
        source: Who asked for it, for the audit log.

    Raises:
        SessionNotFound: If there is none.
        StorageUnavailable: If the store cannot be written.
        GatewayStopping: If the gateway is shutting down.

    """
    live = any(run.request.session == session for run in gateway.engine.live())
    found = await _alone(
        gateway,
        session,
        lambda: gateway.store.delete(session),
        cancel=RunCancelled("the session was deleted"),
    )
    if not (found or live):
        raise _not_found(session)
    _tell(gateway, "session.deleted", session, source)
    return records.deleted_object(session)


async def reset(
    gateway: Gateway, session: SessionId, source: Source = NOBODY
) -> dict[str, Any]:
    """Let a session begin anew behind the runs it has: schema ``sessions/was_reset``.

    Its messages stay where they are, and are no part of the transcript any more.

    Args:
        gateway: Whose session.
        session: Which one.
        source: Who asked for it, for the audit log.

    Raises:
        SessionNotFound: If there is none.
        StorageUnavailable: If the store cannot be written.
        GatewayStopping: If the gateway is shutting down.

    """
    if not await _alone(
        gateway, session, lambda: gateway.store.reset(session, time.time())
    ):
        raise _not_found(session)
    _tell(gateway, "session.reset", session, source)
    return records.reset_object(session)


def _tell(gateway: Gateway, event: str, session: SessionId, source: Source) -> None:
    """Tell the audit log what became of a session, not which one it was."""
    owner = session.principal
    source = source._replace(principal=source.principal or owner)
    gateway.audit.write(event, source, agent=session.agent, owner=owner)


async def _alone(
    gateway: Gateway,
    session: SessionId,
    change: Callable[[], Awaitable[bool]],
    *,
    cancel: EdwinError | None = None,
) -> bool:
    """Make *change* in the session's lane, and let nobody believe what was before."""

    async def work() -> bool:
        try:
            return await change()
        finally:
            gateway.registry.forget(session)
            if cancel is not None:
                gateway.engine.forget(session)

    return await gateway.engine.exclusively(session, work, cancel=cancel)


def _not_found(session: SessionId) -> SessionNotFound:
    return SessionNotFound(
        f"agent {session.agent[:64]!r} has no session with this key", param="key"
    )
