"""An index of what each worker holds now: it is read whenever a worker registers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    held = sa.text("status IN ('assigned', 'running', 'cancelling')")
    op.create_index(
        "ix_operations_held", "operations", ["worker_id"], sqlite_where=held, postgresql_where=held
    )
