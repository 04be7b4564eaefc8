"""Runs that have begun something which must not be done twice."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; no run from before has begun any such thing."""
    op.add_column(
        "runs",
        sa.Column("effects", sa.Boolean, nullable=False, server_default=sa.false()),
    )
