"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="meta_pkey"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double, nullable=False),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="sessions_pkey"),
        sa.UniqueConstraint(
            "principal", "agent", "key", name="sessions_principal_agent_key_key"
        ),
    )
    op.create_table(
        "blobs",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="blobs_pkey"),
    )
    _runs()
    op.create_table(
        "messages",
        sa.Column("session_id", sa.LargeBinary, nullable=False),
        sa.Column("seq", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("own", sa.Boolean, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("blobs", sa.Text),
        sa.Column("superseded_by", sa.Text),
        sa.PrimaryKeyConstraint("session_id", "seq", name="messages_pkey"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="messages_session_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name="messages_run_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["superseded_by"], ["runs.run_id"], name="messages_superseded_by_fkey"
        ),
    )
    op.create_table(
        "pending",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pending_pkey"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.run_id"], name="pending_run_id_fkey"
        ),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("session_key", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("first_delta_ms", sa.Integer),
        sa.Column("finish_reason", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("cached_tokens", sa.Integer, nullable=False),
        sa.Column("reasoning_tokens", sa.Integer, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="runs_pkey"),
    )
    op.create_index("runs_by_time", "runs", ["created_at"])
    op.create_index("runs_by_principal", "runs", ["principal", "created_at"])
    op.create_index(
        "runs_by_session", "runs", ["principal", "agent", "session_key", "created_at"]
    )
    is_open = sa.text("state IN ('queued', 'running')")
    op.create_index(
        "runs_open",
        "runs",
        ["state"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
