"""Artifacts that nothing refers to go after their grace; what is or may be referred to stays."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.backend.upkeep.garbage import ArtifactGarbage, Collected
from ktrdr.market.store import MarketStore
from ktrdr.operations.events import CancelRequested, Finished, Released
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.store import OperationStore
from ktrdr.testing.clock import FakeClock
from ktrdr.testing.operations import T0, a_model, a_submission, an_outcome, assigned_to
from support.control_plane import ControlPlane
from support.homes import sample

GRACE_S = 100.0


class Yard:
    """A store of artifacts, a ledger, and a collector whose clock a test moves."""

    def __init__(self, root: Path, store: OperationStore) -> None:
        self.root, self.ledger = root, store
        self.clock = FakeClock()
        self.artifacts = FileArtifactStore(root / "artifacts")
        self.garbage = self.collector()

    def collector(self) -> ArtifactGarbage:
        return ArtifactGarbage(
            self.ledger, self.artifacts, self.root / "market", self.root / "gc.json", self.clock, GRACE_S
        )

    def put(self, content: bytes) -> str:
        """An artifact that was put at the clock's time."""
        digest = self.artifacts.put(content)
        now = self.clock.now().timestamp()
        os.utime(self.artifacts.location(digest), (now, now))
        return digest

    async def later(self, seconds: float = GRACE_S) -> Collected:
        self.clock.advance(seconds)
        return await self.garbage.collect()

    def left(self) -> set[str]:
        return set(self.artifacts.digests())


@pytest.fixture(params=["memory", "sql"])
async def yard(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Yard]:
    store = MemoryStore() if request.param == "memory" else SqlStore(tmp_path / "ktrdr.db")
    yield Yard(tmp_path, store)
    await store.close()


async def _ended(yard: Yard, name: str, **artifacts: str) -> None:
    assignment = (await yard.ledger.apply(name, assigned_to(), T0)).operation.assignment
    assert assignment is not None
    await yard.ledger.apply(name, Finished(assignment, an_outcome(artifacts=artifacts)), T0)


async def test_what_is_referred_to_stays_however_old(yard: Yard) -> None:
    part = yard.put(b"weights")
    bundle = yard.put(json.dumps({"files": {"weights": part}}).encode())
    named = yard.put(json.dumps({"of": "a dataset", "segment": yard.put(b"a segment")}).encode())
    other = yard.put(json.dumps([yard.put(b"weights of a listed model")]).encode())
    spec = json.dumps({"kind": "training", "data": [{"manifest": named}]}).encode()
    await yard.ledger.submit(a_submission("op_1", spec=spec), T0)
    await _ended(yard, "op_1", result=yard.put(b"result"), model=bundle, log=yard.put(b"log"))
    await yard.ledger.save_model(a_model(bundle_digest=other))
    await yard.ledger.submit(a_submission("op_2"), T0)
    assignment = (await yard.ledger.apply("op_2", assigned_to(), T0)).operation.assignment
    assert assignment is not None
    await yard.ledger.apply("op_2", Released(assignment, yard.put(b"checkpoint")), T0)
    MarketStore(yard.root / "market", yard.artifacts).save(sample())
    before = yard.left()
    for _ in range(4):
        found = await yard.later(10 * GRACE_S)
    assert found == Collected(kept=len(before))
    assert yard.left() == before


async def test_what_was_never_referred_to_goes_after_the_grace(yard: Yard) -> None:
    old, size = yard.put(b"an upload that was never reported"), 33
    assert await yard.garbage.collect() == Collected(waiting=1)
    fresh = yard.put(b"fresh")
    assert await yard.later(GRACE_S - 1) == Collected(waiting=2)
    assert await yard.later(1) == Collected(removed=1, removed_bytes=size, waiting=1)
    assert yard.left() == {fresh}
    assert not yard.artifacts.has(old)


async def test_what_loses_its_last_reference_has_a_grace_from_then_on(yard: Yard) -> None:
    """However old the file is: whoever read the ledger before may still come for it."""
    await yard.ledger.submit(a_submission("op_1"), T0)
    await _ended(yard, "op_1", result=yard.put(b"result"))
    assert await yard.later(50 * GRACE_S) == Collected(kept=1)
    await yard.ledger.delete("op_1")
    assert await yard.later(50 * GRACE_S) == Collected(waiting=1)
    assert (await yard.later()).removed == 1


async def test_a_new_reference_ends_the_waiting(yard: Yard) -> None:
    digest = yard.put(b"result")
    await yard.garbage.collect()
    await yard.ledger.submit(a_submission("op_1"), T0)
    await _ended(yard, "op_1", result=digest)
    assert await yard.later() == Collected(kept=1)
    await yard.ledger.delete("op_1")
    assert (await yard.later()).waiting == 1


async def test_whatever_is_asked_for_waits_again(yard: Yard) -> None:
    digest = yard.put(b"result")
    await yard.garbage.collect()
    yard.clock.advance(GRACE_S)
    now = yard.clock.now().timestamp()
    os.utime(yard.artifacts.location(digest), (now, now))  # as a HEAD, a PUT or a report does
    assert await yard.garbage.collect() == Collected(waiting=1)
    assert (await yard.later()).removed == 1


async def test_a_restart_keeps_the_waiting_in_mind(yard: Yard) -> None:
    yard.put(b"result")
    await yard.garbage.collect()
    yard.clock.advance(GRACE_S)
    assert (await yard.collector().collect()).removed == 1


@pytest.mark.parametrize("content", ["", "[]", '{"x": "y"}', "torn {"])
async def test_a_damaged_memory_starts_the_grace_again(yard: Yard, content: str) -> None:
    yard.put(b"result")
    await yard.garbage.collect()
    (yard.root / "gc.json").write_text(content)
    assert await yard.later() == Collected(waiting=1)


async def test_a_clock_that_is_set_back_removes_nothing_early(yard: Yard) -> None:
    yard.put(b"result")
    await yard.garbage.collect()
    yard.clock.jump(-1000 * GRACE_S)
    assert await yard.garbage.collect() == Collected(waiting=1)
    assert await yard.later(GRACE_S / 2) == Collected(waiting=1)


async def test_a_dry_run_changes_nothing(yard: Yard) -> None:
    yard.put(b"result")
    assert await yard.garbage.collect(dry_run=True) == Collected(waiting=1)
    assert await yard.later() == Collected(waiting=1)
    yard.clock.advance(GRACE_S)
    assert await yard.garbage.collect(dry_run=True) == Collected(removed=1, removed_bytes=6)
    assert len(yard.left()) == 1


async def test_many_operations_are_read_in_stretches(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "ktrdr.db")
    yard = Yard(tmp_path, store)
    names = [f"op_{number:05d}" for number in range(2_100)]
    await asyncio.gather(*(store.submit(a_submission(name, spec=name.encode()), T0) for name in names))
    digests = {yard.put(name.encode()): name for name in (names[0], names[999], names[1000], names[2099])}
    for digest, name in digests.items():
        await _ended(yard, name, result=digest)
    stretches = [found async for found in store.mentions()]
    assert len(stretches) > 4
    assert set().union(*(found.files for found in stretches)) == set(digests)
    await store.close()


# --- through the backend ----------------------------------------------------------------------------------------------


async def test_on_request_and_touched_by_requests(plane: ControlPlane) -> None:
    artifacts, clock = plane.backend.artifacts, plane.clock
    digest = plane.put(b"a result")
    path = artifacts.location(digest)
    old = clock.now().timestamp() - 10 * 86_400

    async def gc(**body: object) -> tuple[int, int]:
        answer = await plane.api("POST", "/artifacts/gc", body)
        return answer["removed"], answer["waiting"]

    os.utime(path, (old, old))
    assert await gc() == (0, 1)
    assert (await plane.ask("HEAD", f"/api/v1/artifacts/{digest}")).status == 200
    assert path.stat().st_mtime > old
    os.utime(path, (old, old))
    clock.advance(86_400)
    assert await gc(dry_run=True) == (1, 0)
    assert await gc() == (1, 0)
    assert (await plane.ask("HEAD", f"/api/v1/artifacts/{digest}")).status == 404


async def test_a_report_touches_its_files(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    digest = plane.put(b"an old result")
    path = plane.backend.artifacts.location(digest)
    os.utime(path, (1.0, 1.0))
    await plane.deliver(worker, name, artifacts={"result": digest})
    assert path.stat().st_mtime > 1.0
    assert (await plane.store.get(name)).artifacts["result"] == sha256_of(b"an old result")


async def test_the_loop_survives_an_absent_ledger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqlStore(tmp_path / "ktrdr.db")
    yard = Yard(tmp_path, store)
    await store.submit(a_submission("op_1"), T0)
    await store.apply("op_1", CancelRequested(), T0)
    await store.close()
    garbage = ArtifactGarbage(
        store, yard.artifacts, tmp_path / "market", tmp_path / "gc.json", yard.clock, 0.01
    )
    task = asyncio.create_task(garbage.run())
    async with asyncio.timeout(30):
        while caplog.text.count("Collecting artifacts failed") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
