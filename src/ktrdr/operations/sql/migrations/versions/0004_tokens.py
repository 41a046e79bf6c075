"""Tokens: who may do what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _words(length: int | None = None) -> sa.types.TypeEngine[str]:
    """Text; in PostgreSQL of any length and ordered by bytes, as SQLite has it."""
    plain = sa.Text() if length is None else sa.String(length)
    return plain.with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("token_id", _words(16), primary_key=True),
        sa.Column("name", _words(64), nullable=False),
        sa.Column("scopes", _words(), nullable=False),
        sa.Column("digest", _words(64), nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("created_by", _words(64), nullable=False),
        sa.Column("expires_us", sa.BigInteger),
        sa.Column("last_used_us", sa.BigInteger),
    )
    op.create_index("ux_tokens_name", "tokens", ["name"], unique=True)
