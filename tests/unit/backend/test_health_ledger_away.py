"""Probes and leases while the ledger is away or takes no writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from ktrdr.errors import Unavailable
from ktrdr.operations.events import Accepted, Event
from ktrdr.operations.machine import Transition
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import ModelRecord, Operation
from support.control_plane import ControlPlane, settle


class AbsentLedger(MemoryStore):
    """A ledger whose server can be away, as PostgreSQL's can."""

    away = False
    leaves_at: type[Event] | None = None

    async def live(self) -> Sequence[Operation]:
        self._answer()
        return await super().live()

    async def spec(self, digest: str) -> bytes:
        self._answer()
        return await super().spec(digest)

    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        if self.leaves_at is not None and isinstance(event, self.leaves_at):
            self.away = True
        self._answer()
        return await super().apply(operation_id, event, now, model=model)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("The database does not answer.")


async def test_no_lease_ends_because_the_ledger_was_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = AbsentLedger()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        store.away = True
        for _ in range(4):
            plane.clock.advance(50.0)
            await plane.backend.health.round()  # nobody can renew the lease
            with pytest.raises(Unavailable):
                await plane.backend.health.sweep()
        store.away = False
        plane.clock.advance(10.0)
        await plane.backend.health.sweep()
        assert str(await plane.status(name)) == "running"
        await plane.probe()
        plane.clock.advance(51.0)
        await plane.probe()
        operation = await plane.store.get(name)
        assert (str(operation.status), operation.attempt, operation.failures) == ("running", 1, 0)
        plane.unplug(worker)
        plane.clock.advance(61.0)
        await plane.backend.health.sweep()
        assert str(await plane.status(name)) == "pending", "leases end again"
    told = [record.getMessage() for record in caplog.records]
    assert any("A probe failed: The database does not answer." in line for line in told)
    assert not any(record.exc_info for record in caplog.records), "one line each, no tracebacks"


class ReadOnlyLedger(MemoryStore):
    """A ledger that can be read but takes nothing, as on a full disk."""

    full = False

    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        if self.full:
            raise Unavailable("The disk is full.")
        return await super().apply(operation_id, event, now, model=model)


async def test_no_lease_ends_because_renewals_could_not_be_written(tmp_path: Path) -> None:
    store = ReadOnlyLedger()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        store.full = True
        for _ in range(4):
            plane.clock.advance(50.0)
            await plane.backend.health.round()
            await plane.backend.health.sweep()
        store.full = False
        plane.clock.advance(50.0)
        await plane.backend.health.sweep()  # before the probe that will renew it
        assert str(await plane.status(name)) == "running"


async def test_a_start_whose_outcome_could_not_be_written_is_told_again(tmp_path: Path) -> None:
    store = AbsentLedger()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        store.leaves_at = Accepted
        name = await plane.submit()
        await settle(lambda: plane.store.get(name), lambda _: store.away)
        assert str(await plane.status(name)) == "assigned"
        store.leaves_at, store.away = None, False
        await plane.until(name, "running")
        assert [start.attempt for start in worker.starts] == [1, 1]
