"""What reads the store.  Called by ``store`` on its reader threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, select

from edwin.store.bodies import digests, unpack
from edwin.store.changes import session_id
from edwin.store.tables import blobs, messages, runs, sessions
from edwin.types import Entry, RunRecord, SessionId, Transcript, Usage

# Few enough for the parameters that any SQLite takes.
_MAX_DIGESTS = 500

_LAST_SEQ = select(sessions.c.last_seq).where(sessions.c.id == bindparam("id"))
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
        messages.c.superseded_by.is_(None),
        runs.c.state != "failed",
    )
    .order_by(messages.c.seq)
)
_BLOBS = select(blobs.c.digest, blobs.c.data).where(
    blobs.c.digest.in_(bindparam("digests", expanding=True))
)
_RUNS = (
    select(runs)
    .order_by(runs.c.created_at.desc(), runs.c.run_id.desc())
    .limit(bindparam("count"))
)
_SESSION_RUNS = _RUNS.where(
    runs.c.principal == bindparam("principal"),
    runs.c.agent == bindparam("agent"),
    runs.c.session_key == bindparam("key"),
)


def transcript(connection: Connection, session: SessionId) -> Transcript:
    """Return what is kept of *session*; empty if nothing is."""
    key = {"id": session_id(session)}
    last_seq = connection.execute(_LAST_SEQ, key).scalar()
    if last_seq is None:
        return Transcript()
    rows = connection.execute(_ENTRIES, key).all()
    if not rows:
        return Transcript(last_seq=last_seq)
    data = _data(connection, digests(row.blobs for row in rows))
    entries = tuple(
        Entry(seq, run_id, unpack(body, refs, data), own, digest)
        for seq, run_id, own, digest, body, refs, _, _ in rows
    )
    return Transcript(entries, last_seq, rows[-1].state, rows[-1].delivered)


def ledger(
    connection: Connection, session: SessionId | None, limit: int
) -> list[RunRecord]:
    """Return the newest *limit* runs, of *session* or of all, newest first."""
    if session is None:
        result = connection.execute(_RUNS, {"count": limit})
    else:
        result = connection.execute(
            _SESSION_RUNS, {**session._asdict(), "count": limit}
        )
    return [_record(row) for row in result.mappings()]


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
    )
