"""Types of operations that are not dispatched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "pauses",
        sa.Column(
            "operation_type",
            sa.String(32).with_variant(sa.String(collation="C"), "postgresql"),
            primary_key=True,
        ),
        sa.Column("since_us", sa.BigInteger, nullable=False),
    )
