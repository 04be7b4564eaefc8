"""A session under another key: what a new session secret takes.

Called by ``store`` on the writer's thread, inside a transaction.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from edwin.store.changes import session_id
from edwin.store.tables import blob_uses, messages, runs, sessions
from edwin.types import SessionId


def rekey(connection: Connection, old: SessionId, new: SessionId) -> bool:
    """Give the session *old*, and its runs, the identity *new*.

    False if there is no such session, or one that is called so already.
    """
    was, now = session_id(old), session_id(new)
    query = select(sessions).where(sessions.c.id.in_((was, now)))
    found = {row.id: row for row in connection.execute(query)}
    if was not in found or now in found:
        return False
    row = {**found[was]._mapping, **new._asdict(), "id": now}
    connection.execute(insert(sessions).values(row))
    for table in (messages, blob_uses):
        connection.execute(
            update(table).where(table.c.session_id == was).values(session_id=now)
        )
    connection.execute(
        update(runs)
        .where(
            runs.c.principal == old.principal,
            runs.c.agent == old.agent,
            runs.c.session_key == old.key,
        )
        .values(session_key=new.key)
    )
    connection.execute(delete(sessions).where(sessions.c.id == was))
    return True
