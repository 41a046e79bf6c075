"""Which token a worker registered with: it goes when the token does."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    plain = sa.String(16)
    words = plain.with_variant(sa.String(collation="C"), "postgresql")
    op.add_column("workers", sa.Column("enrolled_by", words))
