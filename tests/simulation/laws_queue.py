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
_LATELY_S = 120.0  # between an answer of the ledger and the view made of it: the ledger is slow, a backend stands still


class QueueLaws:
    """Counts anew, in no order, what the ledger says; and looks whether views say what the ledger said."""

    def __init__(self, laws: Laws) -> None:
        self._laws = laws
        # whoever was asked for last is the last; forgotten by time alone: of a long queue very many are asked for lately
        self._told: dict[str, deque[tuple[float, int | None]]] = {}

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
        now, told = self._laws.now(), self._told.pop(operation_id, deque())
        while told and told[0][0] < now - _LATELY_S:
            told.popleft()
        told.append((now, position))
        self._told[operation_id] = told
        while (oldest := next(iter(self._told))) and self._told[oldest][-1][0] < now - _LATELY_S:
            del self._told[oldest]

    def shown(self, view: OperationView) -> None:
        """Somebody gets a view of an operation."""
        position = view.queue_position
        told = [known for _, known in self._told.get(view.operation_id, ())]
        good = position in told if view.status is OperationStatus.PENDING else position is None
        self._laws.demand(
            good, _LAW, f"{view.status} at {position}, and the ledger said {told}", view.operation_id
        )


def _key(operation: Operation) -> tuple[int, datetime, str]:
    return (-operation.priority, operation.created_at, operation.operation_id)
