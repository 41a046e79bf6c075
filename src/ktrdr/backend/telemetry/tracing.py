"""What becomes of operations, as spans: from the submission through queue and dispatch to the end of each attempt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ktrdr.clock import Clock
from ktrdr.operations.machine import Transition
from ktrdr.operations.model import Operation, OperationStatus
from ktrdr.tracing import Place, Span, Traces, attempt_place, operation_place

__all__ = ["OperationTraces"]


@dataclass(slots=True)
class _Attempt:
    """The attempt that is under way, as far as this process saw it."""

    number: int
    assigned_at: datetime
    accepted: bool = False


class OperationTraces:
    """Watches the ledger's changes and records what has ended. After a restart the spans of what began before it are
    missing, but for the operation's own."""

    def __init__(self, traces: Traces, clock: Clock) -> None:
        self._traces, self._clock = traces, clock
        self._attempts: dict[str, _Attempt] = {}
        self._waiting_since: dict[str, datetime] = {}

    def traceparent(self, operation_id: str, attempt: int) -> str | None:
        """What the worker is told, so that its spans come under the attempt's; None where nobody traces."""
        return attempt_place(operation_id, attempt).traceparent if self._traces.enabled else None

    def submitted(self, operation: Operation, since: datetime) -> None:
        """A request that came at ``since`` was checked and recorded."""
        if (
            self._traces.enabled and operation.created_at >= since
        ):  # else an earlier operation of the same key
            self._record("submit", operation, since, operation.created_at)

    def observe(self, transition: Transition) -> None:
        """Take note of a change in the ledger."""
        operation = transition.operation
        if not self._traces.enabled or transition.outcome == "ignored":
            return
        now, name = self._clock.now(), operation.operation_id
        known = self._attempts.get(name)
        if operation.status is OperationStatus.ASSIGNED:
            if known is None or known.number != operation.attempt:
                self._attempts[name] = _Attempt(operation.attempt, now)
                since = self._waiting_since.pop(name, operation.created_at)
                self._record(f"queue {operation.attempt}", operation, since, now)
        elif operation.status is OperationStatus.RUNNING:
            if known is not None and not known.accepted:
                known.accepted = True
                self._record(f"dispatch {known.number}", operation, known.assigned_at, now)
        elif operation.status is not OperationStatus.CANCELLING:
            self._left(operation, now)

    def _left(self, operation: Operation, now: datetime) -> None:
        """An attempt, and perhaps with it the operation, has ended."""
        name = operation.operation_id
        known = self._attempts.pop(name, None)
        waits = not operation.status.terminal
        if known is not None:
            error = "given back to the queue" if waits else operation.error
            self._record(f"attempt {known.number}", operation, known.assigned_at, now, error=error)
        if waits:
            self._waiting_since.setdefault(name, now)
            return
        self._waiting_since.pop(name, None)
        self._record(
            operation.operation_type.value, operation, operation.created_at, now, error=operation.error
        )

    def _record(
        self, name: str, operation: Operation, start: datetime, end: datetime, *, error: str | None = None
    ) -> None:
        root = operation_place(operation.operation_id)
        whole = name == operation.operation_type.value
        place: Place = root if whole else root.child(name)
        told = {
            "operation_id": operation.operation_id,
            "operation_type": operation.operation_type.value,
            "status": operation.status.value,
            "attempt": operation.attempt,
            "worker_id": operation.worker_id,
            "parent_operation_id": operation.parent_operation_id,
        }
        self._traces.record(
            Span(
                name=name.split(" ", maxsplit=1)[0],
                place=place,
                parent=None if whole else root,
                start=start,
                end=end,
                attributes={key: value for key, value in told.items() if value is not None},
                error=error,
            )
        )
