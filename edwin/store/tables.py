"""The store's tables, in SQL that SQLite and PostgreSQL both speak.

A change here comes with an Alembic revision in ``migrations/versions`` and with
:data:`HEAD` moved on to it.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

HEAD = "0004"
"""The Alembic revision these tables are."""

OPEN = text("state IN ('queued', 'running')")
"""Runs that have not ended.  Literal, or SQLite would not use the partial index."""

# What rows from before the column have; a migration adds it without a rebuild.
_ZERO = text("0")

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
    }
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# The id is a digest of the triple: a message's row needs no look-up of its session.
# ``message_count`` counts rows, whatever they are; ``reset_seq`` is the last place
# that is no part of the transcript any more.
sessions = Table(
    "sessions",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
    Column("last_seq", Integer, nullable=False),
    Column("reset_seq", Integer, nullable=False, server_default=_ZERO),
    Column("message_count", Integer, nullable=False, server_default=_ZERO),
    UniqueConstraint("principal", "agent", "key"),
    Index("sessions_by_use", "principal", "used_at"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("session_key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("first_delta_ms", Integer),
    Column("finish_reason", Text),
    Column("error_code", Text),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("reasoning_tokens", Integer, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("events", Integer, nullable=False, server_default=_ZERO),
    Column("effects", Boolean, nullable=False, server_default=false()),
    Column("tool_calls", Integer, nullable=False, server_default=_ZERO),
    Index("runs_by_time", "created_at"),
    Index("runs_by_principal", "principal", "created_at"),
    Index("runs_by_session", "principal", "agent", "session_key", "created_at"),
    Index("runs_open", "state", sqlite_where=OPEN, postgresql_where=OPEN),
)

# ``blobs`` tells which parts of the content are kept in the table ``blobs``: it
# stands beside the body, where no client can write.  A message out of the transcript
# carries in ``superseded_by`` the run that took it out: its own, if that never began.
messages = Table(
    "messages",
    metadata,
    Column("session_id", ForeignKey(sessions.c.id), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("run_id", ForeignKey(runs.c.run_id), nullable=False),
    Column("role", Text, nullable=False),
    Column("own", Boolean, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("body", Text, nullable=False),
    Column("blobs", Text),
    Column("superseded_by", ForeignKey(runs.c.run_id)),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# Which sessions need a blob, for messages and for pending ones alike.  No foreign key:
# the row of a session whose first run waits is not there yet.
blob_uses = Table(
    "blob_uses",
    metadata,
    Column("session_id", LargeBinary, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Index("blob_uses_by_digest", "digest"),
)

pending = Table(
    "pending",
    metadata,
    Column("run_id", ForeignKey(runs.c.run_id), primary_key=True),
    Column("body", Text, nullable=False),
)

# Idempotency keys, and how runs ended that somebody may ask for later.  In both
# ``created_at`` is the run's: by it those are found whose time is over.
keys = Table(
    "keys",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("run_id", ForeignKey(runs.c.run_id), nullable=False),
    Column("created_at", Double, nullable=False),
    Index("keys_by_run", "run_id"),
    Index("keys_by_time", "created_at"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("run_id", ForeignKey(runs.c.run_id), primary_key=True),
    Column("body", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("outcomes_by_time", "created_at"),
)

# Those of the configuration are not here.
principals = Table(
    "principals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)

# Alembic's own table, apart from the others because Alembic makes it by itself.
version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
