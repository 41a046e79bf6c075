"""Which request an idempotency key came with: the same one means the same operation, whatever it would mean by now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    plain = sa.String(64)
    words = plain.with_variant(sa.String(collation="C"), "postgresql")
    op.add_column("operations", sa.Column("request_digest", words))
