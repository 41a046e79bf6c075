"""Who comes later does not get the worker of those who wait, whatever became of the last look at the queue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.clock import SystemClock
from ktrdr.errors import Unavailable
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import NewOperation, Operation, OperationType
from ktrdr.protocol.messages import HealthView
from ktrdr.settings import ControlSettings
from ktrdr.testing.operations import a_worker
from support.control_plane import ControlPlane, calm, spec_of


class Unread(MemoryStore):
    """While ``away`` nobody can read the queue."""

    away = False

    async def pending(self, *question: Any) -> Sequence[Operation]:
        if self.away:
            raise Unavailable("away")
        return await super().pending(*question)


def a_backtest(name: str) -> NewOperation:
    kind = OperationType.BACKTESTING
    return NewOperation(operation_id=name, operation_type=kind, spec=spec_of(kind))


async def test_after_a_look_at_the_queue_that_failed_nobody_overtakes(tmp_path: Path) -> None:
    store = Unread()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        await store.submit(a_backtest("op-first"), plane.backend.clock.now())
        store.away = True
        await plane.join("w1")
        await calm()
        await plane.backend.dispatcher.submit(a_backtest("op-second"))
        store.away = False
        plane.backend.dispatcher.wake()
        await plane.until("op-first", "running")
        assert (await store.get("op-second")).worker_id is None


def test_it_is_told_at_once_when_a_worker_may_be_chosen() -> None:
    registry = WorkerRegistry(SystemClock(), ControlSettings(), "1.1.0")
    told: list[str] = []
    registry.on_free = lambda: told.append("free")
    worker = registry.put(a_worker("w1"), verified=False)
    assert told == []
    view = HealthView(
        worker_status="idle", worker_id="w1", instance_id=worker.record.instance_id, version="0"
    )
    registry.heard(worker, view, worker.revision)
    registry.heard(worker, view, worker.revision)
    assert told == ["free"]
    registry.reserve(worker, "op", 1)
    assert told == ["free"]
    registry.release("w1", "op", 1)
    assert told == ["free", "free"]


async def test_one_pass_reaches_as_far_as_workers_are_free(tmp_path: Path) -> None:
    """However many it looks at first: who waits behind those is overtaken by the next who comes otherwise."""
    count = 100
    async with ControlPlane(tmp_path).running() as plane:
        for number in range(count):
            await plane.store.submit(a_backtest(f"op-{number}"), plane.backend.clock.now())
        for number in range(count):
            plane.backend.registry.put(a_worker(f"w{number}"))
        await plane.backend.dispatcher.dispatch_pending()
        waiting = await plane.store.pending(plane.backend.clock.now(), count)
        assert [operation.operation_id for operation in waiting] == []
