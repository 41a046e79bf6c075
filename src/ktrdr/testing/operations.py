"""Builders for operations and their events, with defaults for what a test does not care about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ktrdr.operations.events import (
    Accepted,
    Assigned,
    CancelRequested,
    Checkpointed,
    ChildDied,
    Event,
    Finished,
    LeaseExpired,
    NotMine,
    Progressed,
    Refused,
    Released,
    Reported,
    Unreachable,
    WorkerLost,
)
from ktrdr.operations.machine import new_operation, step
from ktrdr.operations.model import (
    Assignment,
    JobOutcome,
    ModelRecord,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
    WorkerRecord,
    WorkerType,
)
from ktrdr.operations.progress import Progress

__all__ = [
    "LEASE",
    "T0",
    "a_model",
    "a_submission",
    "a_worker",
    "an_event",
    "an_operation",
    "an_outcome",
    "assigned_to",
    "operation_in",
]

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)


def a_submission(operation_id: str = "op_1", **changes: Any) -> NewOperation:
    """A backtest nobody has an opinion about."""
    fields: dict[str, Any] = {
        "operation_id": operation_id,
        "operation_type": OperationType.BACKTESTING,
        "spec": b'{"kind":"backtesting"}',
    }
    return NewOperation(**{**fields, **changes})


def an_operation(operation_id: str = "op_1", now: datetime = T0, **changes: Any) -> Operation:
    """That backtest, pending."""
    return new_operation(a_submission(operation_id, **changes), now)


def an_outcome(
    status: OperationStatus = OperationStatus.COMPLETED,
    *,
    summary: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, str] | None = None,
    error: str | None = None,
) -> JobOutcome:
    """A delivery; a completed one brings a figure and a result."""
    completed = status is OperationStatus.COMPLETED
    return JobOutcome(
        status=status,
        summary=summary if summary is not None else ({"total_return": 0.25} if completed else {}),
        artifacts=artifacts if artifacts is not None else ({"result": "a" * 64, "log": "b" * 64}),
        error=error,
    )


def assigned_to(worker_id: str = "worker-1", now: datetime = T0, instance_id: str = "instance-1") -> Assigned:
    """An assignment with a lease of ``LEASE``."""
    return Assigned(worker_id, instance_id, now + LEASE)


def an_event(kind: type, assignment: Assignment, now: datetime = T0, **changes: Any) -> Event:
    """An event of any kind for ``assignment``; leases it renews run for ``LEASE`` from ``now``, the one that ended from ``T0``."""
    if kind is CancelRequested:
        return CancelRequested(**changes)
    if kind is Assigned:
        return assigned_to("worker-2", now, "instance-2")
    fields: dict[type, dict[str, Any]] = {
        Accepted: {"lease_expires_at": now + LEASE},
        Progressed: {"lease_expires_at": now + LEASE, "progress": Progress(1, 10)},
        Reported: {"progress": Progress(2, 10)},
        Refused: {"reason": "busy"},
        Unreachable: {"reason": "no answer"},
        Finished: {"outcome": an_outcome()},
        Released: {"checkpoint_digest": "c" * 64},
        LeaseExpired: {"lease_expires_at": T0 + LEASE},
        WorkerLost: {"reason": "restarted"},
        NotMine: {},
        ChildDied: {"detail": "signal 9"},
        Checkpointed: {"digest": "e" * 64, "notes": ("goes on after 3 of 9 epochs",)},
    }
    event: Event = kind(assignment, **{**fields[kind], **changes})
    return event


def operation_in(status: OperationStatus, operation_id: str = "op_1", now: datetime = T0) -> Operation:
    """An operation that came to ``status`` by the machine's own steps; all but ``pending`` have had attempt 1."""
    operation = an_operation(operation_id, now)
    if status is OperationStatus.PENDING:
        return operation
    operation = step(operation, assigned_to(now=now), now).operation
    assert operation.assignment is not None
    path: dict[OperationStatus, tuple[Event, ...]] = {
        OperationStatus.ASSIGNED: (),
        OperationStatus.RUNNING: (an_event(Accepted, operation.assignment, now),),
        OperationStatus.CANCELLING: (CancelRequested(),),
        OperationStatus.COMPLETED: (an_event(Finished, operation.assignment, now),),
        OperationStatus.FAILED: (
            Finished(operation.assignment, an_outcome(OperationStatus.FAILED, error="division by zero")),
        ),
        OperationStatus.CANCELLED: (CancelRequested(), an_event(Finished, operation.assignment, now)),
    }
    for event in path[status]:
        operation = step(operation, event, now).operation
    return operation


def a_worker(worker_id: str = "worker-1", **changes: Any) -> WorkerRecord:
    """A backtest worker on loopback."""
    fields: dict[str, Any] = {
        "worker_id": worker_id,
        "worker_type": WorkerType.BACKTESTING,
        "endpoint_url": "http://127.0.0.1:5003",
        "instance_id": "instance-1",
        "capabilities": {"cores": 2, "gpu": False, "memory_gb": 7.5},
        "registered_at": T0,
    }
    return WorkerRecord(**{**fields, **changes})


def a_model(model_id: str = "sp500_trend_1", **changes: Any) -> ModelRecord:
    """A model trained by ``op_1``."""
    fields: dict[str, Any] = {
        "model_id": model_id,
        "bundle_digest": "d" * 64,
        "strategy_name": "sp500_trend",
        "operation_id": "op_1",
        "created_at": T0,
        "symbols": ("SP500",),
        "timeframes": ("1d",),
        "metrics": {"val_loss": 0.5, "best_epoch": 7},
    }
    return ModelRecord(**{**fields, **changes})
