"""Planted bugs in what people are told about the queue."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["QUEUE_BUGS"]

_LEDGER, _SERVICE = "operations/memory/ledger.py", "backend/operations/service.py"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


QUEUE_BUGS = (
    _bug(
        "the position in the queue ignores the priority",
        _LEDGER,
        "key=lambda o: (-o.priority, *place_of(o))",
        "key=place_of",
    ),
    _bug(
        "the position in the queue counts the other type too",
        _LEDGER,
        "for o in self._queue() if o.operation_type is operation.operation_type]",
        "for o in self._queue()]",
    ),
    _bug(
        "a view shows the position that was told first",
        _SERVICE,
        "            queue_position = await self.store.queue_position(operation_id)\n",
        "            first = self.__dict__.setdefault('first', {})\n"
        "            queue_position = await self.store.queue_position(operation_id)\n"
        "            queue_position = first.setdefault(operation_id, queue_position)\n",
    ),
    _bug(
        "a position is told of what does not wait any more",
        _SERVICE,
        "        queue_position = None\n        if operation.status is OperationStatus.PENDING:\n",
        "        queue_position = 1\n        if operation.status is OperationStatus.PENDING:\n",
    ),
)
