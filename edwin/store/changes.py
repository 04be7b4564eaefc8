"""What changes the store: rows, each with the step that writes it.

Called by ``store`` (which makes changes up) and by ``writer`` (which applies them).
The rows of many changes are put together and each step is run once for all of them,
in the order of :class:`Step`, an order that foreign keys allow.  All is pure but
:func:`apply`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, TypeAlias

import orjson
from sqlalchemy import (
    Connection,
    Dialect,
    bindparam,
    case,
    delete,
    insert,
    true,
    update,
)

from edwin.store import dialect as dialects
from edwin.store.bodies import Packed, pack
from edwin.store.tables import (
    blob_uses,
    blobs,
    keys,
    messages,
    meta,
    outcomes,
    pending,
    runs,
    sessions,
)
from edwin.types import Entry, IdempotencyKey, Message, RunRecord, SessionId


class Step(IntEnum):
    """One statement of a transaction."""

    META = 0
    BLOB = 1
    USE = 2
    SESSION = 3
    RUN = 4
    KEY = 5
    PEND = 6
    MESSAGE = 7
    SUPERSEDE = 8
    UNPEND = 9
    DELIVER = 10
    OUTCOME = 11
    RELEASE = 12


Row: TypeAlias = tuple[Any, ...]
Steps: TypeAlias = list[tuple[Step, Row]]
Change: TypeAlias = Sequence[tuple[Step, Row]]


def statements(dialect: Dialect) -> tuple[str, ...]:
    """Return the SQL of every step, parameters by position.

    A row that is inserted has the order of its table's columns.  Compiled once and
    for all: for rows as small as these SQLAlchemy's work at each execution would be
    several times that of the database.
    """

    def upsert(table: Any, key: str, *changing: str) -> Any:
        new = dialects.insert(dialect.name, table)
        values = {name: new.excluded[name] for name in changing}
        if "last_seq" in values:
            old, last = table.c.last_seq, values["last_seq"]
            values["last_seq"] = case((last > old, last), else_=old)
        if "message_count" in values:
            values["message_count"] += table.c.message_count
        if "effects" in values:
            # Once true for good, whatever an older record says.  No or_(): it is
            # not the same text in every dialect.
            values["effects"] = table.c.effects.op("OR")(values["effects"])
        return new.on_conflict_do_update(index_elements=[key], set_=values)

    def once(table: Any, *key: str) -> Any:
        new = dialects.insert(dialect.name, table)
        return new.on_conflict_do_nothing(index_elements=key)

    steps = {
        Step.META: upsert(meta, "key", "value"),
        Step.BLOB: once(blobs, "digest"),
        Step.USE: once(blob_uses, "session_id", "digest"),
        Step.SESSION: upsert(sessions, "id", "used_at", "last_seq", "message_count"),
        Step.RUN: upsert(runs, "run_id", *_RUN_CHANGES),
        Step.KEY: once(keys, "principal", "key"),
        Step.PEND: insert(pending),
        Step.MESSAGE: insert(messages),
        Step.SUPERSEDE: update(messages)
        .where(messages.c.session_id == bindparam("id"))
        .where(messages.c.seq == bindparam("place"))
        .where(messages.c.superseded_by.is_(None))
        .values(superseded_by=bindparam("run")),
        Step.UNPEND: delete(pending).where(pending.c.run_id == bindparam("run")),
        Step.DELIVER: update(runs)
        .where(runs.c.run_id == bindparam("run"))
        .values(delivered=true()),
        Step.OUTCOME: upsert(outcomes, "run_id", "body"),
        Step.RELEASE: delete(keys).where(keys.c.run_id == bindparam("run")),
    }
    return tuple(str(steps[step].compile(dialect=dialect)) for step in Step)


_RUN_CHANGES = (
    "state",
    "started_at",
    "finished_at",
    "first_delta_ms",
    "finish_reason",
    "error_code",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "estimated",
    "events",
    "effects",
    "tool_calls",
)


def apply(
    connection: Connection, sql: Sequence[str], changes: Iterable[Change]
) -> None:
    """Write *changes* by the statements *sql*, inside the caller's transaction.

    Raises:
        SQLAlchemyError: If the database refuses a row; roll back then.
        TypeError, ValueError, OverflowError: If the driver does.

    """
    batches: list[list[Row]] = [[] for _ in Step]
    for change in changes:
        if batches[Step.RELEASE] and any(step is Step.KEY for step, _ in change):
            # It may be the key that was let go.
            _run_steps(connection, sql, batches)
            batches = [[] for _ in Step]
        for step, row in change:
            batches[step].append(row)
    _run_steps(connection, sql, batches)


def _run_steps(
    connection: Connection, sql: Sequence[str], batches: Sequence[Sequence[Row]]
) -> None:
    for statement, rows in zip(sql, batches, strict=True):
        if rows:
            connection.exec_driver_sql(statement, rows)


def session_id(session: SessionId) -> bytes:
    """Return the primary key of *session*: 128 bits of a digest of its parts."""
    return hashlib.sha256(orjson.dumps(list(session))).digest()[:16]


def begin(
    record: RunRecord,
    append: Sequence[Entry],
    supersede: Sequence[int] = (),
    key: IdempotencyKey | None = None,
) -> Change:
    """Return the change by which a run of a session starts.

    Raises:
        InternalError: If a message cannot be stored.

    """
    id_ = session_id(record.session)
    return [
        *open(record, key),
        *_entries(record, id_, append),
        *((Step.SUPERSEDE, (record.run_id, id_, seq)) for seq in supersede),
        (Step.UNPEND, (record.run_id,)),
    ]


def finish(
    record: RunRecord,
    append: Sequence[Entry] = (),
    outcome: str | None = None,
    release: bool = False,
) -> Change:
    """Return the change by which a run ends.

    Raises:
        InternalError: If a message cannot be stored.

    """
    change = note(record, outcome, release)
    if append:
        change += _entries(record, session_id(record.session), append)
    return change


def pend(
    record: RunRecord,
    messages: Sequence[Message],
    key: IdempotencyKey | None = None,
) -> Change:
    """Return the change that keeps the *messages* of a run that still waits.

    Raises:
        InternalError: If a message cannot be stored.

    """
    packed = [pack(message) for message in messages]
    body = orjson.dumps(
        [
            {
                "role": message["role"],
                "body": orjson.Fragment(kept.body),
                "blobs": kept.refs and orjson.Fragment(kept.refs),
            }
            for message, kept in zip(messages, packed, strict=True)
        ]
    )
    return [
        *open(record, key),
        (Step.PEND, (record.run_id, body.decode())),
        *_blobs(session_id(record.session), packed),
    ]


def open(record: RunRecord, key: IdempotencyKey | None = None) -> Steps:
    """Return the change that writes the ledger line *record*, and whose *key* is."""
    if key is None:
        return [_run(record)]
    principal, at = record.session.principal, record.created_at
    row = (principal, key.key, key.fingerprint, record.run_id, at)
    return [_run(record), (Step.KEY, row)]


def note(record: RunRecord, outcome: str | None = None, release: bool = False) -> Steps:
    """Return the change that writes the ledger line *record*, and how the run ended.

    *release*: nobody has the run's key any more.
    """
    change = [_run(record)]
    if outcome is not None:
        row = (record.run_id, outcome, record.created_at)
        change.append((Step.OUTCOME, row))
    if release:
        change.append((Step.RELEASE, (record.run_id,)))
    return change


def deliver(run_id: str) -> Change:
    """Return the change that marks a run's answer as delivered."""
    return [(Step.DELIVER, (run_id,))]


def value(key: str, text: str) -> Change:
    """Return the change that sets *key* of the store itself to *text*."""
    return [(Step.META, (key, text))]


def session_row(
    session: SessionId, id_: bytes, at: float, last_seq: int, messages: int
) -> Row:
    """Return the row of *session*, used at *at* (unix seconds).

    *messages* are written with it; they are added to those it has.
    """
    principal, agent, key = session
    return (id_, principal, agent, key, at, at, last_seq, 0, messages)


def _entries(record: RunRecord, id_: bytes, entries: Sequence[Entry]) -> Change:
    at = record.finished_at or record.started_at or record.created_at
    last_seq = max((entry.seq for entry in entries), default=0)
    session = session_row(record.session, id_, at, last_seq, len(entries))
    change: Steps = [(Step.SESSION, session)]
    for entry in entries:
        kept = pack(entry.message)
        row = (
            id_,
            entry.seq,
            entry.run_id,
            entry.message["role"],
            entry.own,
            entry.digest,
            kept.body,
            kept.refs,
            None,
        )
        change.append((Step.MESSAGE, row))
        change.extend(_blobs(id_, [kept]))
    return change


def _blobs(id_: bytes, packed: Iterable[Packed]) -> Change:
    return [
        step
        for kept in packed
        for digest, data in kept.blobs.items()
        for step in ((Step.BLOB, (digest, data)), (Step.USE, (id_, digest)))
    ]


def _run(record: RunRecord) -> tuple[Step, Row]:
    usage = record.usage
    return Step.RUN, (
        record.run_id,
        record.request_id,
        record.session.principal,
        record.session.agent,
        record.session.key,
        record.state,
        record.created_at,
        record.started_at,
        record.finished_at,
        record.first_delta_ms,
        record.finish_reason,
        record.error_code,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.estimated,
        False,
        record.events,
        record.effects,
        record.tool_calls,
    )
