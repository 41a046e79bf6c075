"""Which workers the leader has not seen yet: the others say so, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    # what a leader of the version before puts up while it is updated is of workers that it has seen
    op.add_column("worker_states", sa.Column("seen", sa.Integer, nullable=False, server_default="1"))
