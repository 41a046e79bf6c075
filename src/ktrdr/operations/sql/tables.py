"""The ledger's tables. Times are integer microseconds since 1970 UTC, structures are canonical JSON text.

The migrations under ``migrations/versions`` make these tables; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.types import TypeEngine

from ktrdr.operations.model import OperationStatus

__all__ = [
    "SCHEMA",
    "cluster",
    "held_by_a_worker",
    "metadata",
    "models",
    "operations",
    "pauses",
    "specs",
    "tallies",
    "tokens",
    "worker_states",
    "workers",
]

SCHEMA = "0011"
"""The newest migration."""

metadata = MetaData()


class Words(TypeDecorator[str]):
    """Text that both databases treat alike: of any length, ordered by its bytes.

    PostgreSQL would order by the language of the server and refuse what is longer than declared; it cannot store NUL,
    which becomes the replacement character there.
    """

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(String(collation="C"))
        length = getattr(self.impl, "length", None)
        return dialect.type_descriptor(Text() if length is None else String(length))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is not None and dialect.name == "postgresql":
            return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return value


specs = Table(
    "specs",
    metadata,
    Column("digest", Words(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("operation_id", Words(128), primary_key=True),
    Column("operation_type", Words(32), nullable=False),
    Column("status", Words(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("spec_digest", Words(64), ForeignKey("specs.digest"), nullable=False),
    Column("parent_operation_id", Words(128)),
    Column("idempotency_key", Words(255)),
    Column("requirements", Words(), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("child_deaths", Integer, nullable=False),
    Column("worker_id", Words(128)),
    Column("instance_id", Words(128)),
    Column("lease_expires_us", BigInteger),
    Column("not_before_us", BigInteger),
    Column("started_us", BigInteger),
    Column("completed_us", BigInteger),
    Column("cancel_requested_us", BigInteger),
    Column("checkpoint_digest", Words(64)),
    Column("progress", Words()),
    Column("error", Words()),
    Column("summary", Words()),
    Column("artifacts", Words(), nullable=False),
    Column("story", Words(), nullable=False),
    Column("compacted", Integer, nullable=False, server_default="0"),  # 1: the story is one line
    Column("older_checkpoint_digest", Words(64)),
    Column("requires_gpu", Integer, nullable=False, server_default="0"),  # as the requirements say
    Column("request_digest", Words(64)),  # of the request that came with the idempotency key
)

tallies = Table(  # how many operations there are; changed with them, because counting a million rows is slow
    "tallies",
    metadata,
    Column("operation_type", Words(32), primary_key=True),
    Column("status", Words(16), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", Words(128), primary_key=True),
    Column("worker_type", Words(32), nullable=False),
    Column("endpoint_url", Words(), nullable=False),
    Column("instance_id", Words(128), nullable=False),
    Column("capabilities", Words(), nullable=False),
    Column("registered_us", BigInteger, nullable=False),
    Column("draining", Integer, nullable=False),
    Column("enrolled_by", Words(16)),
)

models = Table(
    "models",
    metadata,
    Column("model_id", Words(255), primary_key=True),
    Column("bundle_digest", Words(64), nullable=False),
    Column("strategy_name", Words(255), nullable=False),
    Column("operation_id", Words(128), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("symbols", Words(), nullable=False),
    Column("timeframes", Words(), nullable=False),
    Column("metrics", Words(), nullable=False),
)

pauses = Table(
    "pauses",
    metadata,
    Column("operation_type", Words(32), primary_key=True),
    Column("since_us", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", Words(16), primary_key=True),
    Column("name", Words(64), nullable=False),
    Column("scopes", Words(), nullable=False),
    Column("digest", Words(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Words(64), nullable=False),
    Column("expires_us", BigInteger),
    Column("last_used_us", BigInteger),
)

# One row: who leads the backends of this ledger, since when and in which epoch, and whose files belong to it.
cluster = Table(
    "cluster",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("leader", Words()),
    Column("address", Words()),
    Column("since_us", BigInteger),
    Column("storage_id", Words(64)),
    Column("storage_place", Words()),
)

# What the leader knows of workers from talking to them, for the backends that follow.
worker_states = Table(
    "worker_states",
    metadata,
    Column("worker_id", Words(128), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("failure", Words()),
    Column("drains_itself", Integer, nullable=False),
    Column("busy_with", Words()),
    Column("seen", Integer, nullable=False, server_default="1"),
)

_PAGE = (operations.c.created_us, operations.c.operation_id)
_ended = text("completed_us IS NOT NULL")
_waiting = text("status = 'pending'")
held_by_a_worker = text("status IN ('assigned', 'running', 'cancelling')")
"""A partial index is used only where a question says this in the words of the index."""

Index("ix_operations_newest", *_PAGE)
Index("ix_operations_worker", operations.c.worker_id, *_PAGE)
Index("ix_operations_spec", operations.c.spec_digest)
Index("ux_operations_key", operations.c.idempotency_key, unique=True)
Index(
    "ix_operations_queue",  # dispatch order
    operations.c.operation_type,
    operations.c.priority.desc(),
    *_PAGE,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)
_for_any = text(f"{_waiting} AND requires_gpu = 0")
Index(
    "ix_operations_queue_any",  # the same, of those that require no GPU: of the others a hundred thousand may wait
    operations.c.operation_type,
    operations.c.requires_gpu,  # always 0; one known column more, so that no planner prefers the index above
    operations.c.priority.desc(),
    *_PAGE,
    sqlite_where=_for_any,
    postgresql_where=_for_any,
)
Index(
    "ix_operations_ended",  # what retention looks for
    operations.c.compacted,
    operations.c.completed_us,
    sqlite_where=_ended,
    postgresql_where=_ended,
)
Index(
    "ix_operations_held",  # what a worker has now, of all that it ever had
    operations.c.worker_id,
    sqlite_where=held_by_a_worker,
    postgresql_where=held_by_a_worker,
)
Index("ux_tokens_name", tokens.c.name, unique=True)
Index("ix_models_strategy", models.c.strategy_name, models.c.created_us)
for _status in OperationStatus:
    _only = text(f"status = '{_status}'")
    Index(  # one partial index per status: the few live rows stay cheap to find, and pages of a type and status too
        f"ix_operations_{_status}",
        operations.c.operation_type,
        *_PAGE,
        sqlite_where=_only,
        postgresql_where=_only,
    )
