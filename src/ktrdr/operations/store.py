"""The ledger's interface and its laws; implementations stand beside it, one contract test holds them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ktrdr.errors import NotFound
from ktrdr.operations.access import AccessLedger
from ktrdr.operations.events import Assigned, Event
from ktrdr.operations.machine import Transition
from ktrdr.operations.model import (
    ModelRecord,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
    WorkerRecord,
)
from ktrdr.operations.references import Mentions

__all__ = ["COUNTED", "LONGEST_WAIT", "Claim", "OperationPage", "OperationQuery", "OperationStore", "absent"]

LONGEST_WAIT = timedelta(
    seconds=15
)  # of an operation that workers refused: no ``not_before`` is further ahead
COUNTED = 10_000
"""How far is counted where no count is kept: what one worker had, and who is ahead in a queue."""


def absent(operation_id: str) -> NotFound:
    """The error that every store raises for an id it does not know."""
    return NotFound("operation", operation_id, hint="'ktrdr operations list' shows what there is")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationQuery:
    """Filters and position of one page, newest first. ``cursor`` is opaque and comes from the page before."""

    statuses: tuple[OperationStatus, ...] = ()
    operation_type: OperationType | None = None
    worker_id: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A pending operation for a worker that was reserved for it."""

    operation_id: str
    event: Assigned


@dataclass(frozen=True, slots=True)
class OperationPage:
    """One page, the number of all that match, and where the next page starts (None at the end).

    ``total`` is exact; of one worker's operations ``COUNTED`` are counted at most.
    """

    operations: tuple[Operation, ...]
    total: int
    next_cursor: str | None


class OperationStore(ABC):
    """The record of every operation; the truth of the control plane.

    Laws
    ----
    - A method that changes something has made it durable when it returns (except the memory store).
    - ``apply`` reads the operation, calls ``machine.step`` and writes the outcome as one atomic unit; concurrent
      calls on one operation happen one after the other. If ``step`` raises, nothing changes.
    - ``submit`` with an ``idempotency_key`` already seen returns the earlier operation if its spec digest is equal,
      and raises Conflict if it differs; a new id is used at most once.
    - A terminal operation never changes again, whatever is applied; only its story tells what was ignored.
    - ``pending`` is in dispatch order: higher priority first, then older, and leaves out ``not_before`` in the future;
      one that is further ahead than ``LONGEST_WAIT`` was written before the clock was set back, and means nothing.
    - Equal specs are stored once. Stories are capped; nothing grows without bound per operation.
    - Methods may be called from one event loop; blocking work happens on a thread of the store's own.
    """

    @property
    @abstractmethod
    def access(self) -> AccessLedger:
        """Who may do what; in the same place as the operations."""

    @abstractmethod
    async def submit(self, new: NewOperation, now: datetime, *, assign: Assigned | None = None) -> Operation:
        """With ``assign`` the operation is recorded and assigned in one unit, unless its key gave an earlier one."""

    @abstractmethod
    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        """``model`` is saved in the same unit if the operation then is completed and delivered it, else not at all:
        who reads ``completed`` finds the model."""

    @abstractmethod
    async def claim(self, claims: Sequence[Claim], now: datetime) -> Sequence[Transition | None]:
        """Assign pending operations, all in one unit; None for each that is not pending any more, is gone, or is held
        by another writer at this moment, for which nobody waits."""

    @abstractmethod
    async def get(self, operation_id: str) -> Operation:
        """Raises NotFound."""

    @abstractmethod
    async def by_key(self, idempotency_key: str) -> Operation | None:
        """The operation that was submitted under this key, if there is one."""

    @abstractmethod
    async def spec(self, digest: str) -> bytes: ...
    @abstractmethod
    async def page(self, query: OperationQuery) -> OperationPage: ...
    @abstractmethod
    async def pending(
        self,
        now: datetime,
        limit: int,
        types: Collection[OperationType] = tuple(OperationType),
        without_gpu: Collection[OperationType] = (),
    ) -> Sequence[Operation]:
        """The first in dispatch order, of these types; of those ``without_gpu`` nothing that requires one. What it costs
        does not grow with those that are left out."""

    @abstractmethod
    async def live(self) -> Sequence[Operation]:
        """Every operation that is assigned, running or cancelling."""

    @abstractmethod
    async def held(self, worker_id: str) -> Sequence[Operation]:
        """Those of :meth:`live` that one worker has, whichever incarnation of it; as cheap as they are few."""

    @abstractmethod
    async def queue_position(self, operation_id: str) -> int | None:
        """1 for the next of its type to be dispatched, at most ``COUNTED`` + 1; None if it is not pending."""

    @abstractmethod
    async def counts(self) -> dict[tuple[OperationType, OperationStatus], int]:
        """Exact at every moment, and cheap however many there are."""

    @abstractmethod
    async def delete(self, operation_id: str) -> None:
        """Forget a terminal operation; Conflict if it is not terminal, NotFound if absent."""

    @abstractmethod
    async def compact(self, before: datetime, limit: int) -> int:
        """Make one line of the stories of at most ``limit`` operations that ended before; how many they were. None of
        them is found again, unless more was told of it."""

    @abstractmethod
    async def expire(self, before: datetime, limit: int) -> Sequence[str]:
        """Forget at most ``limit`` operations that ended before, with specs that nobody else has; their ids. Models
        are kept."""

    @abstractmethod
    async def save_worker(self, worker: WorkerRecord) -> None: ...
    @abstractmethod
    async def delete_worker(self, worker_id: str) -> None: ...
    @abstractmethod
    async def workers(self) -> Sequence[WorkerRecord]: ...
    @abstractmethod
    async def save_model(self, model: ModelRecord) -> None: ...
    @abstractmethod
    async def model(self, model_id: str) -> ModelRecord: ...
    @abstractmethod
    async def models(self, strategy_name: str | None = None) -> Sequence[ModelRecord]:
        """Newest first."""

    @abstractmethod
    def mentions(self) -> AsyncIterator[Mentions]:
        """The artifacts that operations, specifications and models mention, a stretch of the ledger at a time.

        What is recorded while this goes on may be left out; what was recorded before and stays is not."""

    @abstractmethod
    async def paused(self) -> Mapping[OperationType, datetime]:
        """The types of which nothing shall be dispatched, and since when; ``pending`` does not heed them."""

    @abstractmethod
    async def set_paused(
        self, types: Collection[OperationType], since: datetime | None
    ) -> Mapping[OperationType, datetime]:
        """Pause types, or with None let them go; what is paused already keeps its moment. Returns all that are."""

    @abstractmethod
    async def close(self) -> None: ...
