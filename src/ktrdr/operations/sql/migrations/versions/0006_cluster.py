"""Several backends on one ledger: who leads them, and what the leader knows of the workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def _words(length: int | None = None) -> sa.types.TypeEngine[str]:
    """Text; in PostgreSQL of any length and ordered by bytes, as SQLite has it."""
    plain = sa.Text() if length is None else sa.String(length)
    return plain.with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "cluster",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("leader", _words()),
        sa.Column("address", _words()),
        sa.Column("since_us", sa.BigInteger),
        sa.Column("storage_id", _words(64)),
        sa.Column("storage_place", _words()),
    )
    op.create_table(
        "worker_states",
        sa.Column("worker_id", _words(128), primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failure", _words()),
        sa.Column("drains_itself", sa.Integer, nullable=False),
        sa.Column("busy_with", _words()),
    )
