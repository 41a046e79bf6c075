"""The first ledger: specs, operations, workers, models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_STATUSES = ("pending", "assigned", "running", "cancelling", "completed", "failed", "cancelled")
_PAGE = ["created_us", "operation_id"]


def _words(length: int | None = None) -> sa.types.TypeEngine[str]:
    """Text; in PostgreSQL of any length and ordered by bytes, as SQLite has it."""
    plain = sa.Text() if length is None else sa.String(length)
    return plain.with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "specs",
        sa.Column("digest", _words(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    _operations()
    op.create_table(
        "workers",
        sa.Column("worker_id", _words(128), primary_key=True),
        sa.Column("worker_type", _words(32), nullable=False),
        sa.Column("endpoint_url", _words(), nullable=False),
        sa.Column("instance_id", _words(128), nullable=False),
        sa.Column("capabilities", _words(), nullable=False),
        sa.Column("registered_us", sa.BigInteger, nullable=False),
        sa.Column("draining", sa.Integer, nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("model_id", _words(255), primary_key=True),
        sa.Column("bundle_digest", _words(64), nullable=False),
        sa.Column("strategy_name", _words(255), nullable=False),
        sa.Column("operation_id", _words(128), nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("symbols", _words(), nullable=False),
        sa.Column("timeframes", _words(), nullable=False),
        sa.Column("metrics", _words(), nullable=False),
    )
    _indexes()


def _operations() -> None:
    op.create_table(
        "operations",
        sa.Column("operation_id", _words(128), primary_key=True),
        sa.Column("operation_type", _words(32), nullable=False),
        sa.Column("status", _words(16), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("spec_digest", _words(64), sa.ForeignKey("specs.digest"), nullable=False),
        sa.Column("parent_operation_id", _words(128)),
        sa.Column("idempotency_key", _words(255)),
        sa.Column("requirements", _words(), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("child_deaths", sa.Integer, nullable=False),
        sa.Column("worker_id", _words(128)),
        sa.Column("instance_id", _words(128)),
        sa.Column("lease_expires_us", sa.BigInteger),
        sa.Column("not_before_us", sa.BigInteger),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("completed_us", sa.BigInteger),
        sa.Column("cancel_requested_us", sa.BigInteger),
        sa.Column("checkpoint_digest", _words(64)),
        sa.Column("progress", _words()),
        sa.Column("error", _words()),
        sa.Column("summary", _words()),
        sa.Column("artifacts", _words(), nullable=False),
        sa.Column("story", _words(), nullable=False),
    )


def _indexes() -> None:
    op.create_index("ix_operations_newest", "operations", _PAGE)
    op.create_index("ix_operations_counts", "operations", ["operation_type", "status"])
    op.create_index("ix_operations_worker", "operations", ["worker_id", *_PAGE])
    op.create_index("ix_operations_spec", "operations", ["spec_digest"])
    op.create_index("ux_operations_key", "operations", ["idempotency_key"], unique=True)
    op.create_index("ix_models_strategy", "models", ["strategy_name", "created_us"])
    for status in _STATUSES:
        only = sa.text(f"status = '{status}'")
        columns = ["operation_type", "priority", *_PAGE] if status == "pending" else _PAGE
        op.create_index(
            f"ix_operations_{status}", "operations", columns, sqlite_where=only, postgresql_where=only
        )
