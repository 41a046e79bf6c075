"""Between the ledger's rows and its nouns; exact both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from ktrdr.operations.jsontext import dump
from ktrdr.operations.microseconds import from_microseconds, to_microseconds
from ktrdr.operations.model import (
    ModelRecord,
    Operation,
    OperationStatus,
    OperationType,
    WorkerRecord,
    WorkerType,
)
from ktrdr.operations.progress import Progress

__all__ = [
    "model_from_row",
    "operation_from_row",
    "row_of_model",
    "row_of_operation",
    "row_of_worker",
    "worker_from_row",
]

Row = Mapping[str, Any]


def row_of_operation(operation: Operation) -> dict[str, Any]:
    return {
        "operation_id": operation.operation_id,
        "operation_type": operation.operation_type.value,
        "status": operation.status.value,
        "priority": operation.priority,
        "created_us": to_microseconds(operation.created_at),
        "spec_digest": operation.spec_digest,
        "parent_operation_id": operation.parent_operation_id,
        "idempotency_key": operation.idempotency_key,
        "request_digest": operation.request_digest,
        "requirements": dump(operation.requirements),
        "requires_gpu": int(operation.requires_gpu),
        "attempt": operation.attempt,
        "failures": operation.failures,
        "child_deaths": operation.child_deaths,
        "worker_id": operation.worker_id,
        "instance_id": operation.instance_id,
        "lease_expires_us": _us(operation.lease_expires_at),
        "not_before_us": _us(operation.not_before),
        "started_us": _us(operation.started_at),
        "completed_us": _us(operation.completed_at),
        "cancel_requested_us": _us(operation.cancel_requested_at),
        "checkpoint_digest": operation.checkpoint_digest,
        "older_checkpoint_digest": operation.older_checkpoint_digest,
        "progress": None if operation.progress is None else _progress_text(operation.progress),
        "error": operation.error,
        "summary": None if operation.summary is None else dump(operation.summary),
        "artifacts": dump(operation.artifacts),
        "story": dump(operation.story),
    }


def operation_from_row(row: RowMapping) -> Operation:
    return Operation(
        operation_id=row["operation_id"],
        operation_type=OperationType(row["operation_type"]),
        status=OperationStatus(row["status"]),
        priority=row["priority"],
        created_at=from_microseconds(row["created_us"]),
        spec_digest=row["spec_digest"],
        parent_operation_id=row["parent_operation_id"],
        idempotency_key=row["idempotency_key"],
        request_digest=row["request_digest"],
        requirements=json.loads(row["requirements"]),
        attempt=row["attempt"],
        failures=row["failures"],
        child_deaths=row["child_deaths"],
        worker_id=row["worker_id"],
        instance_id=row["instance_id"],
        lease_expires_at=_when(row["lease_expires_us"]),
        not_before=_when(row["not_before_us"]),
        started_at=_when(row["started_us"]),
        completed_at=_when(row["completed_us"]),
        cancel_requested_at=_when(row["cancel_requested_us"]),
        checkpoint_digest=row["checkpoint_digest"],
        older_checkpoint_digest=row["older_checkpoint_digest"],
        progress=None if row["progress"] is None else Progress(**json.loads(row["progress"])),
        error=row["error"],
        summary=None if row["summary"] is None else json.loads(row["summary"]),
        artifacts=json.loads(row["artifacts"]),
        story=tuple(json.loads(row["story"])),
    )


def row_of_worker(worker: WorkerRecord) -> dict[str, Any]:
    return {
        "worker_id": worker.worker_id,
        "worker_type": worker.worker_type.value,
        "endpoint_url": worker.endpoint_url,
        "instance_id": worker.instance_id,
        "capabilities": dump(worker.capabilities),
        "registered_us": to_microseconds(worker.registered_at),
        "draining": int(worker.draining),
        "enrolled_by": worker.enrolled_by,
    }


def worker_from_row(row: RowMapping) -> WorkerRecord:
    return WorkerRecord(
        worker_id=row["worker_id"],
        worker_type=WorkerType(row["worker_type"]),
        endpoint_url=row["endpoint_url"],
        instance_id=row["instance_id"],
        capabilities=json.loads(row["capabilities"]),
        registered_at=from_microseconds(row["registered_us"]),
        draining=bool(row["draining"]),
        enrolled_by=row["enrolled_by"],
    )


def row_of_model(model: ModelRecord) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "bundle_digest": model.bundle_digest,
        "strategy_name": model.strategy_name,
        "operation_id": model.operation_id,
        "created_us": to_microseconds(model.created_at),
        "symbols": dump(model.symbols),
        "timeframes": dump(model.timeframes),
        "metrics": dump(model.metrics),
    }


def model_from_row(row: RowMapping) -> ModelRecord:
    return ModelRecord(
        model_id=row["model_id"],
        bundle_digest=row["bundle_digest"],
        strategy_name=row["strategy_name"],
        operation_id=row["operation_id"],
        created_at=from_microseconds(row["created_us"]),
        symbols=tuple(json.loads(row["symbols"])),
        timeframes=tuple(json.loads(row["timeframes"])),
        metrics=json.loads(row["metrics"]),
    )


def _progress_text(progress: Progress) -> str:
    return dump(
        {
            "items_done": progress.items_done,
            "items_total": progress.items_total,
            "message": progress.message,
            "context": progress.context,
        }
    )


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)


def _when(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)
