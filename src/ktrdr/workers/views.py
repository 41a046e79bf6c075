"""What a worker says of its operations: the same messages as the backend's."""

from __future__ import annotations

from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.operations.progress import Progress
from ktrdr.protocol.messages import MetricsView, OperationView, ProgressView
from ktrdr.workers.slot import Entry

__all__ = ["metrics_view", "operation_view", "progress_view"]

_STATUS = {
    "completed": OperationStatus.COMPLETED,
    "failed": OperationStatus.FAILED,
    "cancelled": OperationStatus.CANCELLED,
    "released": OperationStatus.CANCELLED,
    "child_died": OperationStatus.FAILED,
}


def progress_view(progress: Progress | None, *, complete: bool = False) -> ProgressView:
    """100 % once complete, whatever the last snapshot said."""
    view = ProgressView.of(progress)
    return view.model_copy(update={"percentage": 100.0}) if complete else view


def operation_view(entry: Entry, worker_id: str) -> OperationView:
    """The operation as this worker knows it; what it gave back at a stop is ``cancelled`` here."""
    run, ending = entry.run, entry.ending
    if ending is not None:
        status = _STATUS[ending.status]
    else:
        status = OperationStatus.CANCELLING if run.stopping else OperationStatus.RUNNING
    return OperationView(
        operation_id=run.operation_id,
        operation_type=OperationType(run.spec.kind),
        status=status,
        progress=progress_view(run.progress(), complete=status is OperationStatus.COMPLETED),
        worker_id=worker_id,
        attempt=run.attempt,
        created_at=run.started_at,
        started_at=run.started_at,
        completed_at=entry.ended_at,
        error=ending.error if ending else None,
        result_summary=ending.summary if ending and ending.status == "completed" else None,
        artifacts=ending.artifacts if ending else {},
    )


def metrics_view(entry: Entry, key: str, cursor: int) -> MetricsView:
    """Records from ``cursor`` on under the name that the kind of operation gives them."""
    records, following = entry.run.metrics(cursor)
    return MetricsView.model_validate(
        {"operation_id": entry.run.operation_id, key: records, "next_cursor": following}
    )
