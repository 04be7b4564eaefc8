"""What leaves the store: sessions on demand, and whatever is past its time.

Called by ``store``: :func:`find` on its reader threads, the rest on the writer's,
inside a transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    select,
    update,
)

from edwin.store.bodies import digests
from edwin.store.changes import session_id
from edwin.store.tables import (
    OPEN,
    blob_uses,
    blobs,
    keys,
    messages,
    outcomes,
    pending,
    runs,
    sessions,
)
from edwin.types import SessionId

# Few enough for the parameters that any SQLite takes.
_CHUNK = 500


class Limits(NamedTuple):
    """What is past its time.

    Attributes:
        ended_before: Keys and outcomes of runs that ended before then (unix seconds).
        used_before: Sessions whose last use was before then; None: none are.
        max_messages: Messages that a session may have; 0: any number.
        batch: About how many rows go at once.

    """

    ended_before: float
    used_before: float | None
    max_messages: int
    batch: int


class Found(NamedTuple):
    """What there was to remove when somebody looked.

    Attributes:
        runs: Ids of those whose key and outcome go.
        unused: Ids of sessions that go.
        long: Ids of sessions whose oldest messages go.

    """

    runs: Sequence[str]
    unused: Sequence[bytes]
    long: Sequence[bytes]


def find(connection: Connection, limits: Limits) -> Found:
    """Return a batch of what is past its time; nothing of it if nothing is."""
    return Found(
        runs=_kept_too_long(connection, limits),
        unused=_unused(connection, limits),
        long=_too_long(connection, limits),
    )


def clear(connection: Connection, found: Found, limits: Limits) -> int:
    """Remove what of *found* is still past its time, about a batch; return how much."""
    removed = _remove(connection, keys.c.run_id, found.runs)
    removed += _remove(connection, outcomes.c.run_id, found.runs)
    for id_ in found.unused:
        if removed >= limits.batch:
            return removed
        query = select(sessions.c.principal, sessions.c.agent, sessions.c.key)
        row = connection.execute(
            query.where(sessions.c.id == id_, _is_unused(limits))
        ).one_or_none()
        if row is not None:
            removed += delete_session(connection, SessionId(*row))
    for id_ in found.long:
        if removed >= limits.batch:
            return removed
        removed += _shorten(connection, id_, limits)
    return removed


def delete_session(connection: Connection, session: SessionId) -> int:
    """Remove all of *session*; return how many rows were removed or changed.

    In the ledger its runs' lines stay, without what they can be told by.
    """
    id_ = session_id(session)
    ours = and_(
        runs.c.principal == session.principal,
        runs.c.agent == session.agent,
        runs.c.session_key == session.key,
    )
    its_runs = select(runs.c.run_id).where(ours)
    used = select(blob_uses.c.digest).where(blob_uses.c.session_id == id_)
    by_others = exists().where(
        blob_uses.c.digest == blobs.c.digest, blob_uses.c.session_id != id_
    )
    steps = (
        delete(messages).where(messages.c.session_id == id_),
        delete(pending).where(pending.c.run_id.in_(its_runs)),
        delete(keys).where(keys.c.run_id.in_(its_runs)),
        delete(outcomes).where(outcomes.c.run_id.in_(its_runs)),
        delete(blobs).where(blobs.c.digest.in_(used), ~by_others),
        delete(blob_uses).where(blob_uses.c.session_id == id_),
        delete(sessions).where(sessions.c.id == id_),
        update(runs).where(ours).values(session_key="", request_id=""),
    )
    return sum(connection.execute(step).rowcount for step in steps)


def reset_session(connection: Connection, session: SessionId, at: float) -> bool:
    """Take all messages of *session* out of its transcript; False if it is unknown."""
    step = (
        update(sessions)
        .where(sessions.c.id == session_id(session))
        .values(reset_seq=sessions.c.last_seq, used_at=at)
    )
    return connection.execute(step).rowcount > 0


def _kept_too_long(connection: Connection, limits: Limits) -> list[str]:
    found: set[str] = set()
    for table in (keys, outcomes):
        # What ended before then was made before then, and for that there is an index.
        query = (
            select(table.c.run_id)
            .join(runs, runs.c.run_id == table.c.run_id)
            .where(
                table.c.created_at < limits.ended_before,
                runs.c.finished_at < limits.ended_before,
            )
            .limit(limits.batch)
        )
        found.update(connection.execute(query).scalars())
    return sorted(found)


def _unused(connection: Connection, limits: Limits) -> list[bytes]:
    if limits.used_before is None:
        return []
    found: list[bytes] = []
    for principal in _principals(connection):
        query = (
            select(sessions.c.id)
            .where(sessions.c.principal == principal, _is_unused(limits))
            .order_by(sessions.c.used_at)
            .limit(limits.batch - len(found))
        )
        found.extend(connection.execute(query).scalars())
        if len(found) == limits.batch:
            break
    return found


def _principals(connection: Connection) -> Iterator[str]:
    """Yield those that have sessions, each by one look into the index."""
    lowest = select(func.min(sessions.c.principal))
    principal = connection.execute(lowest).scalar()
    while principal is not None:
        yield principal
        query = lowest.where(sessions.c.principal > principal)
        principal = connection.execute(query).scalar()


def _is_unused(limits: Limits) -> ColumnElement[bool]:
    has_open_run = exists().where(
        runs.c.principal == sessions.c.principal,
        runs.c.agent == sessions.c.agent,
        runs.c.session_key == sessions.c.key,
        OPEN,
    )
    return and_(sessions.c.used_at < limits.used_before, ~has_open_run)


def _too_long(connection: Connection, limits: Limits) -> list[bytes]:
    if not limits.max_messages:
        return []
    run_of = select(messages.c.run_id).where(messages.c.session_id == sessions.c.id)
    oldest = run_of.order_by(messages.c.seq).limit(1).scalar_subquery()
    newest = run_of.order_by(messages.c.seq.desc()).limit(1).scalar_subquery()
    query = (
        select(sessions.c.id)
        .where(sessions.c.message_count > limits.max_messages, oldest != newest)
        .limit(limits.batch)
    )
    return list(connection.execute(query).scalars())


def _shorten(connection: Connection, id_: bytes, limits: Limits) -> int:
    """Remove a session's oldest messages, whole runs of them; return how many."""
    query = select(sessions.c.message_count).where(sessions.c.id == id_)
    count = connection.execute(query).scalar() or 0
    excess = min(count - limits.max_messages, limits.batch)
    last = _last_to_go(connection, id_, excess) if excess > 0 else None
    if last is None:
        return 0
    going = and_(messages.c.session_id == id_, messages.c.seq <= last)
    refs = connection.execute(select(messages.c.blobs).where(going)).scalars()
    wanted = digests(refs)
    removed = connection.execute(delete(messages).where(going)).rowcount
    if wanted:
        _release_blobs(connection, id_, wanted)
    connection.execute(
        update(sessions)
        .where(sessions.c.id == id_)
        .values(message_count=sessions.c.message_count - removed)
    )
    return removed


def _last_to_go(connection: Connection, id_: bytes, excess: int) -> int | None:
    """Return the place of the last message to go, so that *excess* go or a few more.

    The messages of a run are neighbours.  None if there is but the newest run.
    """
    of_session = select(messages.c.seq, messages.c.run_id).where(
        messages.c.session_id == id_
    )
    up, down = messages.c.seq, messages.c.seq.desc()
    newest = connection.execute(of_session.order_by(down).limit(1)).one()
    last = connection.execute(
        of_session.order_by(up).offset(excess - 1).limit(1)
    ).one_or_none()
    if last is None or last.run_id == newest.run_id:
        query = of_session.where(messages.c.run_id != newest.run_id).order_by(down)
        return connection.execute(query.limit(1)).scalar()
    query = of_session.where(
        messages.c.seq > last.seq, messages.c.run_id != last.run_id
    )
    return int(connection.execute(query.order_by(up).limit(1)).one().seq) - 1


def _release_blobs(connection: Connection, id_: bytes, wanted: set[bytes]) -> None:
    """Let go of those of *wanted* that the session does not need any more."""
    gone: list[Any] = sorted(wanted - _needed(connection, id_))
    used = exists().where(blob_uses.c.digest == blobs.c.digest)
    for chunk in _chunks(gone):
        for step in (
            delete(blob_uses).where(
                blob_uses.c.session_id == id_, blob_uses.c.digest.in_(chunk)
            ),
            delete(blobs).where(blobs.c.digest.in_(chunk), ~used),
        ):
            connection.execute(step)


def _needed(connection: Connection, id_: bytes) -> set[bytes]:
    """Return the digests that the session's messages and pending ones name."""
    refs = select(messages.c.blobs).where(
        messages.c.session_id == id_, messages.c.blobs.is_not(None)
    )
    waiting = (
        select(pending.c.body)
        .join(runs, runs.c.run_id == pending.c.run_id)
        .join(
            sessions,
            and_(
                sessions.c.principal == runs.c.principal,
                sessions.c.agent == runs.c.agent,
                sessions.c.key == runs.c.session_key,
            ),
        )
        .where(sessions.c.id == id_)
    )
    return digests(connection.execute(refs).scalars()) | {
        bytes.fromhex(digest)
        for body in connection.execute(waiting).scalars()
        for message in orjson.loads(body)
        for _, digest in message["blobs"] or ()
    }


def _remove(connection: Connection, column: Column[Any], values: Sequence[Any]) -> int:
    """Remove the rows whose *column* has one of *values*; return how many."""
    return sum(
        connection.execute(delete(column.table).where(column.in_(chunk))).rowcount
        for chunk in _chunks(values)
    )


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
