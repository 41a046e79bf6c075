"""The ledger's disk, which outlives backends: the memory store, with indexes, and with a watcher at every change."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Protocol

from ktrdr.operations.events import Assigned, Event
from ktrdr.operations.machine import Transition
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import (
    ModelRecord,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
)
from ktrdr.operations.references import Mentions, mentioned_by_row
from ktrdr.operations.rows import row_of_operation
from ktrdr.operations.store import LONGEST_WAIT

__all__ = ["Disk", "Watcher"]

_LIVE = (OperationStatus.ASSIGNED, OperationStatus.RUNNING, OperationStatus.CANCELLING)
_FIRST = 200
_SPARE = 1_000
_SHORT = 40  # queues: in longer ones nobody counts who stands before
_Place = tuple[int, datetime, str]


class Watcher(Protocol):
    """Who looks at every change of the ledger."""

    def submitted(self, operation: Operation) -> None: ...
    def changed(self, before: Operation, event: Event, transition: Transition) -> None: ...
    def deleted(self, operation: Operation) -> None: ...
    def expires(self, operation: Operation, before: datetime) -> None: ...
    def listed(self, model: ModelRecord) -> None: ...
    def answered(
        self, operation: Operation, position: int | None, waiting: Sequence[Operation] | None
    ) -> None: ...


class Disk(MemoryStore):
    """What is durable. Queues, live operations and counts are kept in order, so that a million operations cost what
    a hundred do."""

    def __init__(self, watcher: Watcher, max_failures: int) -> None:
        super().__init__(max_failures=max_failures)
        self._watcher = watcher
        self._counts: Counter[tuple[OperationType, OperationStatus]] = Counter()
        self._queues: dict[OperationType, list[_Place]] = {kind: [] for kind in OperationType}
        self._for_any: dict[OperationType, list[_Place]] = {kind: [] for kind in OperationType}
        self._held: list[_Place] = []
        self._held_by: defaultdict[str, set[str]] = defaultdict(set)  # worker: operations
        self._ends: list[tuple[datetime, str]] = []  # of all that ended, in this order
        self._passed = 0  # so many at its front are gone
        self._asked: Counter[str] = Counter()  # specification: operations
        self._naming: dict[
            str, Mentions | None
        ] = {}  # operation: what it mentions, once somebody wanted to know
        self._expiring: datetime | None = None

    @property
    def operations(self) -> dict[str, Operation]:
        """Every record, for the laws."""
        return self._operations

    def has_model(self, model_id: str | None) -> bool:
        """Whether a model of this name is listed."""
        return model_id in self._models

    def holds_back(self, kind: OperationType) -> bool:
        """Whether operations of this type are paused."""
        return kind in self._paused

    async def submit(self, new: NewOperation, now: datetime, *, assign: Assigned | None = None) -> Operation:
        known = new.operation_id in self._operations
        operation = await super().submit(new, now)
        if operation.operation_id == new.operation_id and not known:
            self._enter(operation)
            self._asked[operation.spec_digest] += 1
            self._mentions_anew(operation)
            self._watcher.submitted(operation)
            if assign is not None:
                operation = (await self.apply(new.operation_id, assign, now)).operation
        return operation

    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        before = self._find(operation_id)
        transition = await super().apply(operation_id, event, now, model=model)
        if before.status is not transition.operation.status:
            self._leave(before)
            self._enter(transition.operation)
        self._mentions_anew(transition.operation)
        self._watcher.changed(before, event, transition)
        return transition

    async def delete(self, operation_id: str) -> None:
        operation = self._find(operation_id)
        if self._expiring is not None:
            self._watcher.expires(operation, self._expiring)
        self._asked[operation.spec_digest] -= 1
        await super().delete(operation_id)
        self._leave(operation)
        self._naming.pop(operation_id, None)
        if operation.completed_at is not None:
            self._forget_end((operation.completed_at, operation_id))
        self._watcher.deleted(operation)

    def _forget_end(self, end: tuple[datetime, str]) -> None:
        """Most often the first: the others are not moved up each time."""
        place = bisect_left(self._ends, end, self._passed)
        if place > self._passed:
            del self._ends[place]
            return
        self._passed += 1
        if self._passed == _SPARE:
            del self._ends[: self._passed]
            self._passed = 0

    async def expire(self, before: datetime, limit: int) -> Sequence[str]:
        self._expiring = before
        try:
            return await super().expire(before, limit)
        finally:
            self._expiring = None

    def _over(self) -> Iterable[Operation]:
        """Those that ended first: more are never asked for at once."""
        first = self._ends[self._passed : self._passed + _FIRST]
        return (self._operations[name] for _, name in first)

    def _asks_for(self, spec_digest: str) -> bool:
        return +self._asked[spec_digest] > 0

    async def save_model(self, model: ModelRecord) -> None:
        await super().save_model(model)
        self._watcher.listed(model)

    def _mentions_anew(self, operation: Operation) -> None:
        if operation.checkpoints or operation.artifacts or operation.operation_id in self._naming:
            self._naming[operation.operation_id] = None

    async def mentions(self) -> AsyncIterator[Mentions]:
        """Of operations and models, each looked at once; no specification names a file that is here."""
        found = Mentions()
        for name, known in self._naming.items():
            row = row_of_operation(self._operations[name]) if known is None else {}
            self._naming[name] = told = known or mentioned_by_row("operations", row)
            found |= told
        for model in self._models.values():
            found |= Mentions(documents={model.bundle_digest})
        yield found

    def _lines(self, operation: Operation) -> Sequence[list[_Place]]:
        """The ordered lists in which an operation of this status stands."""
        if operation.status is OperationStatus.PENDING:
            kind = operation.operation_type
            everyones, for_any = self._queues[kind], self._for_any[kind]
            return (everyones,) if operation.requires_gpu else (everyones, for_any)
        return (self._held,) if operation.status in _LIVE else ()

    def _enter(self, operation: Operation) -> None:
        self._counts[operation.operation_type, operation.status] += 1
        if operation.completed_at is not None:
            insort(self._ends, (operation.completed_at, operation.operation_id), self._passed)
        for line in self._lines(operation):
            insort(line, _place(operation))
        self._hold(operation, set.add)

    def _leave(self, operation: Operation) -> None:
        self._counts[operation.operation_type, operation.status] -= 1
        for line in self._lines(operation):
            del line[bisect_left(line, _place(operation))]
        self._hold(operation, set.discard)

    def _hold(self, operation: Operation, change: Callable[[set[str], str], None]) -> None:
        if operation.status in _LIVE and (assignment := operation.assignment) is not None:
            change(self._held_by[assignment.worker_id], operation.operation_id)

    def held_by(self, worker_id: str) -> list[Operation]:
        """What a worker holds, oldest first."""
        found = (self._operations[name] for name in self._held_by.get(worker_id, ()))
        return sorted(found, key=_place)

    async def held(self, worker_id: str) -> Sequence[Operation]:
        return tuple(self.held_by(worker_id))

    async def live(self) -> Sequence[Operation]:
        return tuple(self._operations[place[-1]] for place in self._held)

    async def counts(self) -> dict[tuple[OperationType, OperationStatus], int]:
        return dict(+self._counts)

    async def queue_position(self, operation_id: str) -> int | None:
        operation = self._find(operation_id)
        queue = self._queues[operation.operation_type]
        if len(queue) <= _SHORT:
            position = await super().queue_position(operation_id)
            self._watcher.answered(operation, position, [self._operations[place[-1]] for place in queue])
            return position
        pending = operation.status is OperationStatus.PENDING
        position = bisect_left(queue, _place(operation)) + 1 if pending else None
        self._watcher.answered(operation, position, None)
        return position

    def _waiting(self) -> Iterable[Operation]:
        return (self._operations[place[-1]] for queue in self._queues.values() for place in queue)

    async def pending(
        self,
        now: datetime,
        limit: int,
        types: Collection[OperationType] = tuple(OperationType),
        without_gpu: Collection[OperationType] = (),
    ) -> Sequence[Operation]:
        reach = limit  # into each queue; further if some must wait
        while True:
            queues = ((self._for_any if kind in without_gpu else self._queues)[kind] for kind in types)
            front = sorted(chain.from_iterable(queue[:reach] for queue in queues))[:reach]
            first = (self._operations[place[-1]] for place in front)
            found = [o for o in first if o.not_before is None or _may_begin(o, now)]
            if len(found) >= limit or len(front) < reach:
                return tuple(found[:limit])
            reach *= 4

    def unended(self) -> list[Operation]:
        """All that waits or runs."""
        lines = (*self._queues.values(), self._held)
        return [self._operations[place[-1]] for line in lines for place in line]

    def waiting(self, kind: OperationType, now: datetime, limit: int) -> Iterator[Operation]:
        """What is first in the queue of one type and may be dispatched now."""
        first = (self._operations[place[-1]] for place in self._queues[kind])
        return islice((o for o in first if _may_begin(o, now)), limit)


def _may_begin(operation: Operation, now: datetime) -> bool:
    return operation.not_before is None or not now < operation.not_before <= now + LONGEST_WAIT


def _place(operation: Operation) -> _Place:
    """In a queue the priority comes first; among live operations it is of no account, as in the real ledgers."""
    first = -operation.priority if operation.status is OperationStatus.PENDING else 0
    return (first, operation.created_at, operation.operation_id)
