"""What reads the store.  Called by ``store`` on its reader threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    func,
    select,
    tuple_,
)

from edwin.errors import InternalError
from edwin.store.bodies import digests, unpack
from edwin.store.changes import session_id
from edwin.store.tables import blobs, keys, messages, outcomes, runs, sessions
from edwin.types import (
    Entry,
    KeptRun,
    RunRecord,
    SessionId,
    SessionRecord,
    StoredMessage,
    Transcript,
    Usage,
)

# Few enough for the parameters that any SQLite takes.
_MAX_DIGESTS = 500

_VALID = and_(messages.c.superseded_by.is_(None), runs.c.state != "failed")

_SESSION = select(sessions.c.last_seq, sessions.c.reset_seq, sessions.c.used_at).where(
    sessions.c.id == bindparam("id")
)
_ENTRIES = (
    select(
        messages.c.seq,
        messages.c.run_id,
        messages.c.own,
        messages.c.digest,
        messages.c.body,
        messages.c.blobs,
        runs.c.state,
        runs.c.delivered,
    )
    .join(runs, runs.c.run_id == messages.c.run_id)
    .where(
        messages.c.session_id == bindparam("id"),
        messages.c.seq > bindparam("reset_seq"),
        _VALID,
    )
    .order_by(messages.c.seq)
)
_CURRENT = and_(_VALID, messages.c.seq > sessions.c.reset_seq)
_MESSAGES = (
    select(
        messages.c.seq,
        messages.c.run_id,
        messages.c.own,
        messages.c.body,
        messages.c.blobs,
        _CURRENT.label("current"),
    )
    .join(runs, runs.c.run_id == messages.c.run_id)
    .join(sessions, sessions.c.id == messages.c.session_id)
    .where(
        messages.c.session_id == bindparam("id"),
        messages.c.seq > bindparam("after"),
    )
    .order_by(messages.c.seq)
    .limit(bindparam("count"))
)
_CURRENT_MESSAGES = _MESSAGES.where(_CURRENT)
_BLOBS = select(blobs.c.digest, blobs.c.data).where(
    blobs.c.digest.in_(bindparam("digests", expanding=True))
)
_OUTCOME = outcomes.c.run_id == runs.c.run_id
_KEPT = (
    select(runs, keys.c.fingerprint, outcomes.c.body)
    .join_from(keys, runs, runs.c.run_id == keys.c.run_id)
    .outerjoin(outcomes, _OUTCOME)
    .where(keys.c.principal == bindparam("principal"), keys.c.key == bindparam("key"))
)
_RUN = (
    select(runs, keys.c.fingerprint, outcomes.c.body)
    .outerjoin_from(runs, keys, keys.c.run_id == runs.c.run_id)
    .outerjoin(outcomes, _OUTCOME)
    .where(runs.c.run_id == bindparam("run"))
)
# Its parts have no blank: the text is a session's own.
_PLACE = sessions.c.key + " " + sessions.c.agent + " " + sessions.c.principal


def transcript(connection: Connection, session: SessionId) -> Transcript:
    """Return what is kept of *session*; empty if nothing is."""
    id_ = session_id(session)
    found = connection.execute(_SESSION, {"id": id_}).one_or_none()
    if found is None:
        return Transcript()
    last_seq, reset_seq, used_at = found
    rows, data = _with_data(connection, _ENTRIES, {"id": id_, "reset_seq": reset_seq})
    if not rows:
        return Transcript(last_seq=last_seq, used_at=used_at)
    entries = tuple(
        Entry(seq, run_id, unpack(body, refs, data), own, digest)
        for seq, run_id, own, digest, body, refs, _, _ in rows
    )
    return Transcript(entries, last_seq, rows[-1].state, rows[-1].delivered, used_at)


def session(connection: Connection, wanted: SessionId) -> SessionRecord | None:
    """Return what is known of the session *wanted*; None if it is not there."""
    query = select(sessions).where(sessions.c.id == session_id(wanted))
    for found in _sessions(connection, query):
        return found
    return None


def session_page(
    connection: Connection,
    principal: str | None,
    agent: str | None,
    before: tuple[float, str] | None,
    limit: int,
) -> list[SessionRecord]:
    """Return *limit* sessions, the ones used last first, those behind *before*."""
    query = select(sessions).limit(limit)
    if principal is not None:
        query = query.where(sessions.c.principal == principal)
    if agent is not None:
        query = query.where(sessions.c.agent == agent)
    if before is not None:
        query = query.where(tuple_(sessions.c.used_at, _PLACE) < tuple_(*before))
    return _sessions(
        connection, query.order_by(sessions.c.used_at.desc(), _PLACE.desc())
    )


def session_place(record: SessionRecord) -> tuple[float, str]:
    """Return the place of *record* in the order of :func:`session_page`."""
    principal, agent, key = record.session
    return record.used_at, f"{key} {agent} {principal}"


def message_page(
    connection: Connection,
    session: SessionId,
    after: int,
    limit: int,
    superseded: bool,
) -> list[StoredMessage]:
    """Return *limit* messages of *session* behind the place *after*, in order."""
    query = _MESSAGES if superseded else _CURRENT_MESSAGES
    values = {"id": session_id(session), "after": after, "count": limit}
    rows, data = _with_data(connection, query, values)
    return [
        StoredMessage(seq, run_id, unpack(body, refs, data), own, current)
        for seq, run_id, own, body, refs, current in rows
    ]


def ledger(
    connection: Connection,
    wanted: Mapping[str, str | None],
    before: tuple[float, str] | None,
    limit: int,
) -> list[RunRecord]:
    """Return *limit* runs, newest first, those behind *before*.

    Args:
        connection: To the database.
        wanted: What the columns named must hold; None: anything.
        before: The place (``created_at``, ``run_id``) of a run; None: from the first.
        limit: How many at most.

    """
    query = select(runs).limit(limit)
    for name, value in wanted.items():
        if value is not None:
            query = query.where(runs.c[name] == value)
    place = runs.c.created_at, runs.c.run_id
    if before is not None:
        query = query.where(tuple_(*place) < tuple_(*before))
    query = query.order_by(*(column.desc() for column in place))
    return [_record(row) for row in connection.execute(query).mappings()]


def kept(connection: Connection, principal: str, key: str) -> KeptRun | None:
    """Return the run that has the principal's idempotency *key*."""
    return _kept(connection, _KEPT, {"principal": principal, "key": key})


def run(connection: Connection, run_id: str) -> KeptRun | None:
    """Return the run with this id."""
    return _kept(connection, _RUN, {"run": run_id})


def _kept(
    connection: Connection, query: Select[Any], values: Mapping[str, str]
) -> KeptRun | None:
    row = connection.execute(query, values).mappings().first()
    if row is None:
        return None
    return KeptRun(_record(row), row["fingerprint"] or b"", row["body"])


def _sessions(connection: Connection, query: Select[Any]) -> list[SessionRecord]:
    # Counted for those on the page alone, whatever has to be sorted for it.
    page = query.add_columns(_PLACE.label("place")).subquery()
    count = (
        select(func.count())
        .select_from(messages)
        .join(runs, runs.c.run_id == messages.c.run_id)
        .where(
            messages.c.session_id == page.c.id,
            messages.c.seq > page.c.reset_seq,
            _VALID,
        )
        .scalar_subquery()
    )
    counted = select(page, count.label("messages")).order_by(
        page.c.used_at.desc(), page.c.place.desc()
    )
    return [
        SessionRecord(
            SessionId(row.principal, row.agent, row.key),
            row.created_at,
            row.used_at,
            row.messages,
        )
        for row in connection.execute(counted)
    ]


def _with_data(
    connection: Connection, query: Select[Any], values: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[bytes, bytes]]:
    """Return the messages that *query* finds, and the data they show."""
    before = None
    while True:
        rows = connection.execute(query, values).all()
        wanted = digests(row.blobs for row in rows)
        data = _data(connection, wanted)
        if len(data) == len(wanted):
            return rows, data
        if rows == before:
            raise InternalError("the store lacks an image or a file of a message")
        # Removed between the two statements, and the messages with it.
        before = rows


def _data(connection: Connection, wanted: set[bytes]) -> Mapping[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    order: list[Any] = sorted(wanted)
    for start in range(0, len(order), _MAX_DIGESTS):
        some = {"digests": order[start : start + _MAX_DIGESTS]}
        for digest, data in connection.execute(_BLOBS, some):
            found[digest] = data
    return found


def _record(row: RowMapping) -> RunRecord:
    return RunRecord(
        run_id=row["run_id"],
        request_id=row["request_id"],
        session=SessionId(row["principal"], row["agent"], row["session_key"]),
        state=row["state"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        first_delta_ms=row["first_delta_ms"],
        finish_reason=row["finish_reason"],
        error_code=row["error_code"],
        usage=Usage(
            row["prompt_tokens"],
            row["completion_tokens"],
            row["cached_tokens"],
            row["reasoning_tokens"],
            row["estimated"],
        ),
        events=row["events"],
        effects=row["effects"],
        tool_calls=row["tool_calls"],
    )
