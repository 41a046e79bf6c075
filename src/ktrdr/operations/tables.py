"""The ledger's tables. Times are integer microseconds since 1970 UTC, structures are canonical JSON text.

The migrations under ``migrations/versions`` make these tables; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from ktrdr.operations.model import OperationStatus

__all__ = ["SCHEMA", "metadata", "models", "operations", "specs", "workers"]

SCHEMA = "0001"
"""The newest migration."""

metadata = MetaData()

specs = Table(
    "specs",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("operation_id", String(128), primary_key=True),
    Column("operation_type", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("spec_digest", String(64), ForeignKey("specs.digest"), nullable=False),
    Column("parent_operation_id", String(128)),
    Column("idempotency_key", String(255)),
    Column("requirements", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("child_deaths", Integer, nullable=False),
    Column("worker_id", String(128)),
    Column("instance_id", String(128)),
    Column("lease_expires_us", BigInteger),
    Column("not_before_us", BigInteger),
    Column("started_us", BigInteger),
    Column("completed_us", BigInteger),
    Column("cancel_requested_us", BigInteger),
    Column("checkpoint_digest", String(64)),
    Column("progress", Text),
    Column("error", Text),
    Column("summary", Text),
    Column("artifacts", Text, nullable=False),
    Column("story", Text, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", String(128), primary_key=True),
    Column("worker_type", String(32), nullable=False),
    Column("endpoint_url", Text, nullable=False),
    Column("instance_id", String(128), nullable=False),
    Column("capabilities", Text, nullable=False),
    Column("registered_us", BigInteger, nullable=False),
    Column("draining", Integer, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("model_id", String(255), primary_key=True),
    Column("bundle_digest", String(64), nullable=False),
    Column("strategy_name", String(255), nullable=False),
    Column("operation_id", String(128), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("symbols", Text, nullable=False),
    Column("timeframes", Text, nullable=False),
    Column("metrics", Text, nullable=False),
)

_PAGE = (operations.c.created_us, operations.c.operation_id)
_QUEUE = (operations.c.operation_type, operations.c.priority, *_PAGE)

Index("ix_operations_newest", *_PAGE)
Index("ix_operations_counts", operations.c.operation_type, operations.c.status)
Index("ix_operations_worker", operations.c.worker_id, *_PAGE)
Index("ix_operations_spec", operations.c.spec_digest)
Index("ux_operations_key", operations.c.idempotency_key, unique=True)
Index("ix_models_strategy", models.c.strategy_name, models.c.created_us)
for _status in OperationStatus:
    _only = text(
        f"status = '{_status}'"
    )  # one partial index per status: the few live rows stay cheap to find
    Index(
        f"ix_operations_{_status}",
        *(_QUEUE if _status is OperationStatus.PENDING else _PAGE),
        sqlite_where=_only,
        postgresql_where=_only,
    )
