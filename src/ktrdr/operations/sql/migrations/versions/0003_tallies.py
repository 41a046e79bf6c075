"""Counts that are kept instead of counted; indexes for pages and queues of one type; a mark for compacted stories."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_STATUSES = ("pending", "assigned", "running", "cancelling", "completed", "failed", "cancelled")
_PAGE = ["created_us", "operation_id"]


def _words(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(collation="C"), "postgresql")


def _index(name: str, columns: list[str | sa.TextClause], only: str) -> None:
    where = sa.text(only)
    op.create_index(name, "operations", columns, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    op.create_table(
        "tallies",
        sa.Column("operation_type", _words(32), primary_key=True),
        sa.Column("status", _words(16), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.execute(
        "INSERT INTO tallies (operation_type, status, count) "
        "SELECT operation_type, status, count(*) FROM operations GROUP BY operation_type, status"
    )
    op.add_column("operations", sa.Column("compacted", sa.Integer, nullable=False, server_default="0"))
    op.drop_index("ix_operations_counts", "operations")
    for status in _STATUSES:
        op.drop_index(f"ix_operations_{status}", "operations")
        _index(f"ix_operations_{status}", ["operation_type", *_PAGE], f"status = '{status}'")
    _index("ix_operations_queue", ["operation_type", sa.text("priority DESC"), *_PAGE], "status = 'pending'")
    _index("ix_operations_ended", ["compacted", "completed_us"], "completed_us IS NOT NULL")
