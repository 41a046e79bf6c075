"""A ledger in memory: for tests and simulations, with the same laws except durability."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from ktrdr.errors import NotFound
from ktrdr.operations.events import Assigned, Event
from ktrdr.operations.machine import Transition, new_operation, step
from ktrdr.operations.memory.access import MemoryAccess
from ktrdr.operations.model import (
    ModelRecord,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
    WorkerRecord,
)
from ktrdr.operations.paging import checked_limit, decode_cursor, encode_cursor, place_of
from ktrdr.operations.references import Mentions, mentioned_by_row
from ktrdr.operations.refusals import id_taken, not_terminal, same_submission
from ktrdr.operations.rows import row_of_model, row_of_operation
from ktrdr.operations.store import (
    COUNTED,
    LONGEST_WAIT,
    Claim,
    OperationPage,
    OperationQuery,
    OperationStore,
    absent,
)
from ktrdr.operations.story import compacted

__all__ = ["MemoryStore"]

_LIVE = frozenset({OperationStatus.ASSIGNED, OperationStatus.RUNNING, OperationStatus.CANCELLING})


class MemoryStore(OperationStore):
    """Keeps everything in dictionaries; each method is atomic because none of them awaits."""

    def __init__(self, *, max_failures: int = 3) -> None:
        self._max_failures = max_failures
        self._operations: dict[str, Operation] = {}
        self._keys: dict[str, str] = {}
        self._specs: dict[str, bytes] = {}
        self._workers: dict[str, WorkerRecord] = {}
        self._models: dict[str, ModelRecord] = {}
        self._paused: dict[OperationType, datetime] = {}
        self._access = MemoryAccess()

    @property
    def access(self) -> MemoryAccess:
        return self._access

    async def submit(self, new: NewOperation, now: datetime, *, assign: Assigned | None = None) -> Operation:
        operation = new_operation(new, now)
        if new.idempotency_key is not None and (known := self._keys.get(new.idempotency_key)) is not None:
            return same_submission(self._operations[known], operation)
        if new.operation_id in self._operations:
            raise id_taken(new.operation_id)
        if assign is not None:
            operation = step(operation, assign, now, max_failures=self._max_failures).operation
        self._specs.setdefault(operation.spec_digest, new.spec)
        self._operations[new.operation_id] = operation
        if new.idempotency_key is not None:
            self._keys[new.idempotency_key] = new.operation_id
        return operation

    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        transition = step(self._find(operation_id), event, now, max_failures=self._max_failures)
        self._operations[operation_id] = transition.operation
        if model is not None and model.is_result_of(transition.operation):
            await self.save_model(model)
        return transition

    async def claim(self, claims: Sequence[Claim], now: datetime) -> Sequence[Transition | None]:
        return [await self._claim(claim, now) for claim in claims]

    async def _claim(self, claim: Claim, now: datetime) -> Transition | None:
        known = self._operations.get(claim.operation_id)
        if known is None or known.status is not OperationStatus.PENDING:
            return None
        return await self.apply(claim.operation_id, claim.event, now)

    async def get(self, operation_id: str) -> Operation:
        return self._find(operation_id)

    async def by_key(self, idempotency_key: str) -> Operation | None:
        operation_id = self._keys.get(idempotency_key)
        return None if operation_id is None else self._operations[operation_id]

    async def spec(self, digest: str) -> bytes:
        try:
            return self._specs[digest]
        except KeyError:
            raise NotFound("job specification", digest) from None

    async def page(self, query: OperationQuery) -> OperationPage:
        limit = checked_limit(query.limit)
        found = [operation for operation in self._operations.values() if _matches(operation, query)]
        found.sort(key=place_of, reverse=True)
        total = len(found) if query.worker_id is None else min(len(found), COUNTED)
        if query.cursor is not None:
            after = decode_cursor(query.cursor)
            found = [operation for operation in found if place_of(operation) < after]
        shown = tuple(found[:limit])
        return OperationPage(shown, total, encode_cursor(place_of(shown[-1])) if len(found) > limit else None)

    async def pending(
        self,
        now: datetime,
        limit: int,
        types: Collection[OperationType] = tuple(OperationType),
        without_gpu: Collection[OperationType] = (),
    ) -> Sequence[Operation]:
        queue = (o for o in self._queue() if o.operation_type in types)
        queue = (o for o in queue if not (o.requires_gpu and o.operation_type in without_gpu))
        ready = (o for o in queue if o.not_before is None or not now < o.not_before <= now + LONGEST_WAIT)
        return tuple(ready)[:limit]

    async def live(self) -> Sequence[Operation]:
        return tuple(sorted((o for o in self._operations.values() if o.status in _LIVE), key=place_of))

    async def held(self, worker_id: str) -> Sequence[Operation]:
        return tuple(o for o in await self.live() if o.worker_id == worker_id)

    async def queue_position(self, operation_id: str) -> int | None:
        operation = self._find(operation_id)
        queue = [o.operation_id for o in self._queue() if o.operation_type is operation.operation_type]
        return min(queue.index(operation_id), COUNTED) + 1 if operation_id in queue else None

    async def counts(self) -> dict[tuple[OperationType, OperationStatus], int]:
        return dict(Counter((o.operation_type, o.status) for o in self._operations.values()))

    async def delete(self, operation_id: str) -> None:
        operation = self._find(operation_id)
        if not operation.status.terminal:
            raise not_terminal(operation_id, operation.status)
        del self._operations[operation_id]
        if operation.idempotency_key is not None:
            del self._keys[operation.idempotency_key]
        if not self._asks_for(operation.spec_digest):
            del self._specs[operation.spec_digest]

    async def compact(self, before: datetime, limit: int) -> int:
        whole = [o for o in self._ended(before) if len(o.story) > 1][:limit]
        for operation in whole:
            self._operations[operation.operation_id] = replace(operation, story=compacted(operation.story))
        return len(whole)

    async def expire(self, before: datetime, limit: int) -> Sequence[str]:
        ids = [operation.operation_id for operation in self._ended(before)[:limit]]
        for operation_id in ids:
            await self.delete(operation_id)
        return ids

    def _ended(self, before: datetime) -> list[Operation]:
        return [o for o in self._over() if o.completed_at is not None and o.completed_at < before]

    def _over(self) -> Iterable[Operation]:
        """All that may have ended."""
        return self._operations.values()

    def _asks_for(self, spec_digest: str) -> bool:
        """Whether an operation has this specification."""
        return any(o.spec_digest == spec_digest for o in self._operations.values())

    async def save_worker(self, worker: WorkerRecord) -> None:
        self._workers[worker.worker_id] = worker

    async def delete_worker(self, worker_id: str) -> None:
        self._workers.pop(worker_id, None)

    async def workers(self) -> Sequence[WorkerRecord]:
        return tuple(self._workers[name] for name in sorted(self._workers))

    async def save_model(self, model: ModelRecord) -> None:
        self._models[model.model_id] = model

    async def model(self, model_id: str) -> ModelRecord:
        try:
            return self._models[model_id]
        except KeyError:
            raise NotFound("model", model_id, valid=self._models) from None

    async def models(self, strategy_name: str | None = None) -> Sequence[ModelRecord]:
        found = [m for m in self._models.values() if strategy_name in (None, m.strategy_name)]
        return tuple(sorted(found, key=lambda m: (m.created_at, m.model_id), reverse=True))

    async def mentions(self) -> AsyncIterator[Mentions]:
        found = Mentions()
        for operation in self._operations.values():
            found |= mentioned_by_row("operations", row_of_operation(operation))
        for content in self._specs.values():
            found |= mentioned_by_row("specs", {"content": content})
        for model in self._models.values():
            found |= mentioned_by_row("models", row_of_model(model))
        yield found

    async def paused(self) -> Mapping[OperationType, datetime]:
        return dict(self._paused)

    async def set_paused(
        self, types: Collection[OperationType], since: datetime | None
    ) -> Mapping[OperationType, datetime]:
        for kind in types:
            if since is None:
                self._paused.pop(kind, None)
            else:
                self._paused.setdefault(kind, since)
        return await self.paused()

    async def close(self) -> None:
        """Nothing to release."""

    def _find(self, operation_id: str) -> Operation:
        try:
            return self._operations[operation_id]
        except KeyError:
            raise absent(operation_id) from None

    def _queue(self) -> Iterable[Operation]:
        return sorted(self._waiting(), key=lambda o: (-o.priority, *place_of(o)))

    def _waiting(self) -> Iterable[Operation]:
        return (o for o in self._operations.values() if o.status is OperationStatus.PENDING)


def _matches(operation: Operation, query: OperationQuery) -> bool:
    return (
        (not query.statuses or operation.status in query.statuses)
        and query.operation_type in (None, operation.operation_type)
        and query.worker_id in (None, operation.worker_id)
    )
