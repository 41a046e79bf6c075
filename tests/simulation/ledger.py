"""One backend's connection to the ledger's disk, which may be slow, busy or cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any

from ktrdr.errors import Unavailable
from ktrdr.operations.access import AccessLedger
from ktrdr.operations.events import Assigned, Event
from ktrdr.operations.machine import Transition, new_operation
from ktrdr.operations.model import (
    ModelRecord,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
    WorkerRecord,
)
from ktrdr.operations.references import Mentions
from ktrdr.operations.sql.fence import Fence
from ktrdr.operations.store import Claim, OperationPage, OperationQuery, OperationStore
from simulation.choice import Choice
from simulation.disk import Disk
from simulation.ledger_access import ConnectedAccess
from simulation.plan import Weather
from simulation.trace import Trace
from simulation.virtual_time import Process

if TYPE_CHECKING:
    from simulation.election import Seat

__all__ = ["Connection", "Trouble"]

Crash = Callable[[str, str], None]
_STALE_SHARE = 0.3  # of the reads of a slow ledger


class Trouble:
    """The state of the ledger's storage, moved by the weather."""

    def __init__(self) -> None:
        self.busy_until = 0.0
        self.slow_until = 0.0
        self.failed_at = 0.0  # when a write was refused, left open, or took its time
        self.armed: str | None = None  # "before" or "after": the next assignment's commit kills the backend
        self.doubtful: set[str] = set()  # operations that changed without the backend's being told


class Connection(OperationStore):
    """A backend's store. Writes are durable one after the other; a dead backend's calls never return."""

    def __init__(
        self,
        disk: Disk,
        process: Process,
        trace: Trace,
        random: Random,
        weather: Weather,
        trouble: Trouble,
        crash: Crash,
    ) -> None:
        self._disk, self._process, self._trace, self._random = disk, process, trace, random
        self._weather, self._trouble, self._crash = weather, trouble, crash
        self._free_at = 0.0
        self.seat: Seat | None = None  # in the election, where several backends share the disk
        self.in_flight = 0
        self.on_assign: Callable[[str, Assigned], None] | None = None
        self.on_forget: Callable[[str], None] | None = None
        self.on_expire: Callable[[datetime], None] | None = None
        self.choice: Choice | None = None

    @property
    def access(self) -> AccessLedger:
        """Tokens, over the same line."""
        return ConnectedAccess(self._disk.access, self._read, self._write)

    async def _write(
        self,
        name: str,
        work: Callable[[], Any],
        about: str | None,
        *,
        arms: bool = False,
        reserved: Sequence[str] = (),
        guarded: bool = False,
    ) -> Any:
        """``guarded``: only the leader may, where there are several."""
        self._process.check()
        loop, random = asyncio.get_running_loop(), self._random
        self.in_flight += 1
        try:
            await self._reach(reserved)
            now = loop.time()
            if now < self._trouble.busy_until:
                await asyncio.sleep(random.uniform(0.0, 0.5))
                self._process.check()
                self._trouble.doubtful.update(reserved)  # the backend will have to look
                self._trouble.failed_at = loop.time()
                self._trace.fault("store busy", name, about)
                raise Unavailable("The ledger is locked by another program; try again.")
            takes = random.uniform(0.001, 0.003)
            if now < self._trouble.slow_until:
                self._trouble.failed_at = now
                takes = random.uniform(0.5, 4.0)
                self._trace.fault("store slow", f"{name} takes {takes:.3f} s", about)
            self._free_at = max(now + takes, self._free_at + 1e-5)
            await asyncio.sleep(self._free_at - now)
            self._process.check()
            if guarded and self.seat is not None:
                self.seat.admit(name, about)
            if arms and self._trouble.armed == "before":
                self._trouble.armed = None
                self._crash("backend crash before commit", about or "")
                self._process.check()
            unknown = random.random() < self._weather.commit_unknown
            if unknown:
                self._trouble.failed_at = loop.time()
            if unknown and random.random() < 0.5:
                self._trouble.doubtful.update(reserved)
                self._trace.fault("commit unknown: lost", name, about)
                raise Unavailable("The connection to the ledger broke off during the commit.")
            result = await work()  # the disk never awaits, so this is one step
            if arms and self._trouble.armed == "after":
                self._trouble.armed = None
                self._crash("backend crash after commit before dispatch", about or "")
                self._process.check()
            if unknown or (self.seat is not None and self.seat.is_cut):
                self._trouble.failed_at = loop.time()
                self._trouble.doubtful.update(reserved or [about or ""])
                self._trace.fault("commit unknown: done", name, about)
                raise Unavailable("The connection to the ledger broke off during the commit.")
            await asyncio.sleep(0)
            self._process.check()
            return result
        finally:
            self.in_flight -= 1

    async def _reach(self, reserved: Sequence[str] = ()) -> None:
        """Raise Unavailable if this backend is cut off from the ledger."""
        if self.seat is None or not self.seat.is_cut:
            return
        self._trouble.doubtful.update(reserved)
        self._trouble.failed_at = asyncio.get_running_loop().time()
        await self.seat.reach()

    async def _read(self, work: Callable[[], Any]) -> Any:
        self._process.check()
        self.in_flight += 1
        try:
            await self._reach()
            await asyncio.sleep(0)
            self._process.check()
            result = await work()
            if self._late_reads():
                self._trace.fault("stale read", "an answer is old when it comes")
                await asyncio.sleep(self._random.uniform(0.01, 1.0))
                self._process.check()
            return result
        finally:
            self.in_flight -= 1

    def _late_reads(self) -> bool:
        slow = asyncio.get_running_loop().time() < self._trouble.slow_until
        return slow and self._random.random() < _STALE_SHARE

    def _leads(self) -> bool:
        """Else the fence refuses what it assigns."""
        return self.seat is None or self.seat.leads

    async def submit(self, new: NewOperation, now: datetime, *, assign: Assigned | None = None) -> Operation:
        new_operation(new, now)
        if assign is not None and self.on_assign is not None:
            self.on_assign(new.operation_id, assign)
        if assign is not None and self.choice is not None and self._leads():
            self.choice.submission(new, assign, asyncio.get_running_loop().time())
        result: Operation = await self._write(
            "submit" if assign is None else "submit and assign",
            lambda: self._disk.submit(new, now, assign=assign),
            new.operation_id,
            arms=assign is not None,
            reserved=[new.operation_id] if assign is not None else [],
            guarded=assign is not None,
        )
        return result

    async def claim(self, claims: Sequence[Claim], now: datetime) -> Sequence[Transition | None]:
        if self.on_assign is not None:
            for claim in claims:
                self.on_assign(claim.operation_id, claim.event)
        if self.choice is not None and self._leads():
            self.choice.claims(claims)
        names = [claim.operation_id for claim in claims]
        result: Sequence[Transition | None] = await self._write(
            f"claim {', '.join(names)}",
            lambda: self._disk.claim(claims, now),
            names[0] if names else None,
            arms=True,
            reserved=names,
            guarded=True,
        )
        return result

    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        assigns = isinstance(event, Assigned)
        if assigns and self.on_assign is not None:
            self.on_assign(operation_id, event)
        name, guarded = type(event).__name__, Fence.guards(event)
        result: Transition = await self._write(
            name,
            lambda: self._disk.apply(operation_id, event, now, model=model),
            operation_id,
            arms=assigns,
            guarded=guarded,
        )
        if not guarded and self.seat is not None and not self.seat.leads:
            self._trouble.doubtful.add(operation_id)  # the leader learns of it a little later
        return result

    async def get(self, operation_id: str) -> Operation:
        return await self._read(lambda: self._disk.get(operation_id))

    async def by_key(self, idempotency_key: str) -> Operation | None:
        return await self._read(lambda: self._disk.by_key(idempotency_key))

    async def spec(self, digest: str) -> bytes:
        return await self._read(lambda: self._disk.spec(digest))

    async def page(self, query: OperationQuery) -> OperationPage:
        return await self._read(lambda: self._disk.page(query))

    async def pending(
        self,
        now: datetime,
        limit: int,
        types: Collection[OperationType] = tuple(OperationType),
        without_gpu: Collection[OperationType] = (),
    ) -> Sequence[Operation]:
        found: Sequence[Operation] = await self._read(
            lambda: self._disk.pending(now, limit, types, without_gpu)
        )
        if self.choice is not None:
            self.choice.read(found)
        return found

    async def live(self) -> Sequence[Operation]:
        return await self._read(self._disk.live)

    async def held(self, worker_id: str) -> Sequence[Operation]:
        return await self._read(lambda: self._disk.held(worker_id))

    async def queue_position(self, operation_id: str) -> int | None:
        return await self._read(lambda: self._disk.queue_position(operation_id))

    async def counts(self) -> dict[tuple[OperationType, OperationStatus], int]:
        return await self._read(self._disk.counts)

    async def delete(self, operation_id: str) -> None:
        await self._write("delete", lambda: self._disk.delete(operation_id), operation_id)

    async def compact(self, before: datetime, limit: int) -> int:
        self._tends("stories")
        result: int = await self._write("compact", lambda: self._disk.compact(before, limit), None)
        return result

    async def expire(self, before: datetime, limit: int) -> Sequence[str]:
        self._tends("retention")
        if self.on_expire is not None:
            self.on_expire(before)
        result: Sequence[str] = await self._write("expire", lambda: self._disk.expire(before, limit), None)
        return result

    async def save_worker(self, worker: WorkerRecord) -> None:
        await self._write(
            f"save worker {worker.worker_id}", lambda: self._disk.save_worker(worker), None, guarded=True
        )

    async def delete_worker(self, worker_id: str) -> None:
        if self.on_forget is not None:
            self.on_forget(worker_id)
        await self._write(
            f"delete worker {worker_id}", lambda: self._disk.delete_worker(worker_id), None, guarded=True
        )

    async def workers(self) -> Sequence[WorkerRecord]:
        return await self._read(self._disk.workers)

    async def save_model(self, model: ModelRecord) -> None:
        await self._write("save model", lambda: self._disk.save_model(model), model.operation_id)

    async def model(self, model_id: str) -> ModelRecord:
        return await self._read(lambda: self._disk.model(model_id))

    async def models(self, strategy_name: str | None = None) -> Sequence[ModelRecord]:
        return await self._read(lambda: self._disk.models(strategy_name))

    def mentions(self) -> AsyncIterator[Mentions]:
        self._process.check()
        self._tends("garbage")
        return self._disk.mentions()

    def _tends(self, what: str) -> None:
        """A backend looks after what the ledger or the files have too much of."""
        if self.seat is not None:
            self.seat.must_know_better(what)

    async def paused(self) -> Mapping[OperationType, datetime]:
        return await self._read(self._disk.paused)

    async def set_paused(
        self, types: Collection[OperationType], since: datetime | None
    ) -> Mapping[OperationType, datetime]:
        result: Mapping[OperationType, datetime] = await self._write(
            "set paused", lambda: self._disk.set_paused(types, since), None, guarded=True
        )
        return result

    async def close(self) -> None:
        """The disk stays."""
