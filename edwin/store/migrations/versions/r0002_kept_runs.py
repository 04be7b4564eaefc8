"""Idempotency keys, outcomes of runs, who uses which blob, resets."""

import hashlib
from collections.abc import Iterable, Iterator

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BATCH = 1000


def upgrade() -> None:
    """Add the columns and tables, and fill in what earlier rows have of them."""
    for table, name in (
        ("runs", "events"),
        ("sessions", "reset_seq"),
        ("sessions", "message_count"),
    ):
        op.add_column(
            table,
            sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0")),
        )
    op.create_index("sessions_by_use", "sessions", ["principal", "used_at"])
    op.execute(
        "UPDATE sessions SET message_count = "
        "(SELECT count(*) FROM messages WHERE messages.session_id = sessions.id)"
    )
    _kept_runs()
    _blob_uses()


def _kept_runs() -> None:
    op.create_table(
        "keys",
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name="keys_pkey"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="keys_run_id_fkey"),
    )
    op.create_index("keys_by_run", "keys", ["run_id"])
    op.create_index("keys_by_time", "keys", ["created_at"])
    op.create_table(
        "outcomes",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="outcomes_pkey"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name="outcomes_run_id_fkey"
        ),
    )
    op.create_index("outcomes_by_time", "outcomes", ["created_at"])


def _blob_uses() -> None:
    uses = op.create_table(
        "blob_uses",
        sa.Column("session_id", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "digest", name="blob_uses_pkey"),
    )
    op.create_index("blob_uses_by_digest", "blob_uses", ["digest"])
    found = sorted({*_of_messages(), *_of_pending()})
    for start in range(0, len(found), _BATCH):
        op.bulk_insert(
            uses,
            [
                {"session_id": session_id, "digest": digest}
                for session_id, digest in found[start : start + _BATCH]
            ],
        )


def _of_messages() -> Iterator[tuple[bytes, bytes]]:
    found = op.get_bind().exec_driver_sql(
        "SELECT session_id, blobs FROM messages WHERE blobs IS NOT NULL"
    )
    for session_id, refs in found:
        yield from _uses(bytes(session_id), orjson.loads(refs))


def _of_pending() -> Iterator[tuple[bytes, bytes]]:
    found = op.get_bind().exec_driver_sql(
        "SELECT runs.principal, runs.agent, runs.session_key, pending.body "
        "FROM pending JOIN runs ON runs.run_id = pending.run_id"
    )
    for *session, body in found:
        session_id = hashlib.sha256(orjson.dumps(session)).digest()[:16]
        for message in orjson.loads(body):
            yield from _uses(session_id, message["blobs"] or ())


def _uses(
    session_id: bytes, refs: Iterable[tuple[int, str]]
) -> Iterator[tuple[bytes, bytes]]:
    for _, digest in refs:
        yield session_id, bytes.fromhex(digest)
