"""The lives that the laws of an OperationStore start from."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ktrdr.operations.events import Accepted, Finished
from ktrdr.operations.model import (
    Operation,
    OperationStatus,
)
from ktrdr.operations.store import OperationStore
from ktrdr.testing.operations import (
    LEASE,
    T0,
    a_submission,
    an_outcome,
    assigned_to,
)

__all__ = [
    "ASSIGNED",
    "CANCELLED",
    "CANCELLING",
    "COMPLETED",
    "FAILED",
    "PENDING",
    "RUNNING",
    "SECOND",
    "StoreLaws",
]

PENDING, ASSIGNED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED = OperationStatus
SECOND = timedelta(seconds=1)


class StoreLaws:
    """What the parts of the contract have in common: operations brought to a state."""

    async def running(self, store: OperationStore, operation_id: str, **changes: Any) -> Operation:
        await store.submit(a_submission(operation_id, **changes), T0)
        operation = (await store.apply(operation_id, assigned_to(), T0)).operation
        assert operation.assignment is not None
        return (await store.apply(operation_id, Accepted(operation.assignment, T0 + LEASE), T0)).operation

    async def completed(self, store: OperationStore, operation_id: str, **changes: Any) -> Operation:
        operation = await self.running(store, operation_id, **changes)
        assert operation.assignment is not None
        return (
            await store.apply(operation_id, Finished(operation.assignment, an_outcome()), T0 + SECOND)
        ).operation
