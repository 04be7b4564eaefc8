"""What a start sets right: the secret's digest, and runs that a crash cut off.

Called by ``store`` at its start, on a thread, before anything else uses the store.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from sqlalchemy import Connection, inspect, select, update

from edwin.errors import StateError
from edwin.store import changes
from edwin.store.changes import Change, Row, Step
from edwin.store.tables import OPEN, meta, pending, runs, sessions
from edwin.types import SessionId

_SECRET = "session_secret"


def check_secret(connection: Connection, digests: Sequence[str]) -> None:
    """Refuse a store whose sessions were made with another secret.

    Raises:
        StateError: If the digest it keeps is none of *digests*.

    """
    if not inspect(connection).has_table(meta.name):
        return
    query = select(meta.c.value).where(meta.c.key == _SECRET)
    kept = connection.execute(query).scalar()
    if kept is not None and kept not in digests:
        raise StateError(
            "the store was made with another session secret: add that one to "
            "gateway.sessionSecrets, or move the store away to begin with an empty one"
        )


def secret_change(connection: Connection, digest: str) -> Change:
    """Return the change that keeps *digest*, that of the secret keys are made with."""
    query = select(meta.c.value).where(meta.c.key == _SECRET)
    if connection.execute(query).scalar() == digest:
        return []
    return changes.value(_SECRET, digest)


def restart_changes(connection: Connection, now: float) -> list[Change]:
    """End what a crash left open; return what else has to be written.

    Open runs become failed (``gateway_restarted``).  What clients had sent to runs
    that never began is kept as messages of those runs, in no transcript.
    """
    connection.execute(
        update(runs)
        .where(OPEN)
        .values(state="failed", error_code="gateway_restarted", finished_at=now)
    )
    waiting = connection.execute(
        select(
            pending.c.run_id,
            pending.c.body,
            runs.c.principal,
            runs.c.agent,
            runs.c.session_key,
        )
        .join(runs, runs.c.run_id == pending.c.run_id)
        .order_by(runs.c.created_at, runs.c.run_id)
    ).all()
    last_seqs: dict[bytes, int] = {}
    found: list[Change] = []
    for row in waiting:
        session = SessionId(row.principal, row.agent, row.session_key)
        id_ = changes.session_id(session)
        if id_ not in last_seqs:
            query = select(sessions.c.last_seq).where(sessions.c.id == id_)
            last_seqs[id_] = connection.execute(query).scalar() or 0
        messages = _messages(row.run_id, row.body, id_, last_seqs[id_] + 1)
        last_seqs[id_] += len(messages)
        found.append(
            [
                (
                    Step.SESSION,
                    changes.session_row(
                        session, id_, now, last_seqs[id_], len(messages)
                    ),
                ),
                *((Step.MESSAGE, message) for message in messages),
                (Step.UNPEND, (row.run_id,)),
            ]
        )
    return found


def _messages(run_id: str, body: str, id_: bytes, seq: int) -> list[Row]:
    return [
        (
            id_,
            seq + index,
            run_id,
            message["role"],
            False,
            b"",
            orjson.dumps(message["body"]).decode(),
            message["blobs"] and orjson.dumps(message["blobs"]).decode(),
            run_id,
        )
        for index, message in enumerate(orjson.loads(body))
    ]
