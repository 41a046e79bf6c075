"""The nouns of the ledger: operations, workers and models as the backend remembers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ktrdr.operations.progress import Progress

__all__ = [
    "TERMINAL",
    "Assignment",
    "JobOutcome",
    "ModelRecord",
    "NewOperation",
    "Operation",
    "OperationStatus",
    "OperationType",
    "WorkerRecord",
    "WorkerType",
]


class OperationType(StrEnum):
    BACKTESTING = "backtesting"
    TRAINING = "training"


class WorkerType(StrEnum):
    BACKTESTING = "backtesting"
    TRAINING = "training"


class OperationStatus(StrEnum):
    PENDING = "pending"
    ASSIGNED = "assigned"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({OperationStatus.COMPLETED, OperationStatus.FAILED, OperationStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who runs which attempt. A message counts only if all three match the operation's newest assignment."""

    worker_id: str
    instance_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """How one attempt ended, as its worker tells it.

    ``status`` is completed, failed or cancelled; ``summary`` the few figures lists show;
    ``artifacts`` names of stored files to digests (``result``, ``trades``, ``equity``, ``metrics``, ``log``, ``model``).
    """

    status: OperationStatus
    summary: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOperation:
    """What a submission brings. ``spec`` is canonical JSON; it is stored once by its digest."""

    operation_id: str
    operation_type: OperationType
    spec: bytes
    priority: int = 0
    parent_operation_id: str | None = None
    idempotency_key: str | None = None
    request_digest: str | None = None  # where there is a key: of the request that it came with
    requirements: Mapping[str, Any] = field(
        default_factory=dict
    )  # {"prefer_gpu": True, "require_gpu": False}
    checkpoints: tuple[str, ...] = ()  # where to go on, newest first; the parent's


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One piece of work in the ledger; changed only by ``ktrdr.operations.machine.step``.

    ``worker_id`` and ``instance_id`` name the newest assignment, also while the operation is pending again or has
    ended; ``status`` says whether anybody runs it now. A pending operation whose worker itself told the end of the
    attempt (released, child died) has no ``instance_id``: nothing of that attempt can be adopted.
    """

    operation_id: str
    operation_type: OperationType
    status: OperationStatus
    spec_digest: str
    created_at: datetime
    priority: int = 0
    requirements: Mapping[str, Any] = field(default_factory=dict)
    parent_operation_id: str | None = None
    idempotency_key: str | None = None
    request_digest: str | None = None  # SHA-256 of the request that came with the key
    attempt: int = 0
    failures: int = 0  # counts towards the maximum; a refusal or a release is none
    child_deaths: int = 0  # after the first, the dispatcher prefers another worker than ``worker_id``
    worker_id: str | None = None
    instance_id: str | None = None
    lease_expires_at: datetime | None = None
    not_before: datetime | None = None  # back-off after refusals
    started_at: datetime | None = None
    completed_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    checkpoint_digest: str | None = None  # the newest; its file was verified before it came here
    older_checkpoint_digest: str | None = None  # should the newest prove unusable
    progress: Progress | None = None
    error: str | None = None
    summary: Mapping[str, Any] | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    story: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Digests of the checkpoints from which the next attempt can go on, newest first."""
        newest, older = self.checkpoint_digest, self.older_checkpoint_digest
        if older is None:
            return () if newest is None else (newest,)
        return (older,) if newest is None else (newest, older)

    @property
    def requires_gpu(self) -> bool:
        """Whether only a worker with a GPU will do."""
        return bool(self.requirements.get("require_gpu"))

    @property
    def assignment(self) -> Assignment | None:
        """The newest assignment, or None before the first."""
        if self.worker_id is None or self.instance_id is None:
            return None
        return Assignment(self.worker_id, self.instance_id, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker as the ledger remembers it across a backend restart."""

    worker_id: str
    worker_type: WorkerType
    endpoint_url: str
    instance_id: str
    capabilities: Mapping[str, Any]
    registered_at: datetime
    draining: bool = False
    # the id of the ledger's token that it showed; None: it showed one of the settings, or none
    enrolled_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A trained model: ``bundle_digest`` is the digest of its ``bundle.json`` artifact."""

    model_id: str
    bundle_digest: str
    strategy_name: str
    operation_id: str
    created_at: datetime
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def is_result_of(self, operation: Operation) -> bool:
        """Whether the operation is completed and delivered exactly this bundle."""
        completed = operation.status is OperationStatus.COMPLETED
        return completed and operation.artifacts.get("model") == self.bundle_digest
