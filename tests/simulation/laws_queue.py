"""The laws of what people are told about the queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from ktrdr.operations.model import Operation, OperationStatus
from ktrdr.protocol.messages import OperationView

if TYPE_CHECKING:
    from simulation.laws import Laws

__all__ = ["QueueLaws"]

_LAW = "the position in the queue is the number of those that go before, and one"
_MANY = 10_000  # operations that were asked for lately
_LATELY = 4  # answers of the ledger about an operation: several may ask for it at once


class QueueLaws:
    """Counts anew, in no order, what the ledger says; and looks whether views say what the ledger said."""

    def __init__(self, laws: Laws) -> None:
        self._laws = laws
        self._told: dict[str, deque[int | None]] = {}

    def answered(
        self, operation: Operation, position: int | None, waiting: Iterable[Operation] | None
    ) -> None:
        """The ledger says where an operation stands among those that wait (None: too many to count)."""
        if waiting is None:
            self._remember(operation.operation_id, position)
            return
        name, mine = operation.operation_id, _key(operation)
        before = sum(1 for o in waiting if o.operation_type is operation.operation_type and _key(o) < mine)
        expected = before + 1 if operation.status is OperationStatus.PENDING else None
        self._laws.demand(position == expected, _LAW, f"{position}, not {expected}", name)
        self._remember(name, position)

    def _remember(self, operation_id: str, position: int | None) -> None:
        told = self._told.pop(operation_id, None) or deque[int | None](maxlen=_LATELY)
        told.append(position)
        self._told[operation_id] = told
        if len(self._told) > _MANY:
            del self._told[next(iter(self._told))]

    def shown(self, view: OperationView) -> None:
        """Somebody gets a view of an operation."""
        position, told = view.queue_position, self._told.get(view.operation_id, ())
        good = position in told if view.status is OperationStatus.PENDING else position is None
        self._laws.demand(
            good, _LAW, f"{view.status} at {position}, and the ledger said {list(told)}", view.operation_id
        )


def _key(operation: Operation) -> tuple[int, datetime, str]:
    return (-operation.priority, operation.created_at, operation.operation_id)
