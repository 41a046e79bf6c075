"""Which operations only a worker with a GPU can do, and the queue of the others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("operations", sa.Column("requires_gpu", sa.Integer, nullable=False, server_default="0"))
    operations = sa.table("operations", sa.column("requires_gpu"), sa.column("requirements"))
    told = operations.c.requirements.like('%"require_gpu":true%')  # canonical JSON has no blanks
    op.execute(operations.update().where(told).values(requires_gpu=1))
    waiting = sa.text("status = 'pending' AND requires_gpu = 0")
    op.create_index(
        "ix_operations_queue_any",
        "operations",
        ["operation_type", "requires_gpu", sa.text("priority DESC"), "created_us", "operation_id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
