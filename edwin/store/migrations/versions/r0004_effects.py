"""What runs have called, and whether it must not be done twice."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns; no run from before has called a tool."""
    op.add_column(
        "runs",
        sa.Column("effects", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "runs",
        sa.Column(
            "tool_calls", sa.Integer, nullable=False, server_default=sa.text("0")
        ),
    )
