"""The checkpoint before the newest, to fall back to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    plain = sa.String(64)
    words = plain.with_variant(sa.String(collation="C"), "postgresql")
    op.add_column("operations", sa.Column("older_checkpoint_digest", words))
