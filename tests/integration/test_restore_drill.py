"""The restore drill: a fleet under load is backed up, dies, and lives on from the backup in another place."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.operations.model import Operation
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.store import OperationQuery
from support.chaos import Chaos, ended, integrity, no_tracebacks
from support.processes import finished, ktrdr, parts, wait_for
from support.stream import Stream

pytestmark = pytest.mark.integration


async def _operations(home: Path) -> dict[str, Operation]:
    store = SqlStore(home / "ktrdr.db")
    try:
        page = await store.page(OperationQuery(limit=1000))
        assert page.next_cursor is None
        return {operation.operation_id: operation for operation in page.operations}
    finally:
        await store.close()


def test_a_fleet_under_load_lives_on_from_its_backup(tmp_path: Path) -> None:
    archive, home = tmp_path / "b.tar", tmp_path / "restored"
    with parts(tmp_path / "first", measured=False) as first:
        chaos = Chaos(first, quick=f"trace {tmp_path / 'trace'} 0.02", slow=f"trace {tmp_path / 'trace'} 900")
        backend = first.backend()
        workers = [chaos.worker("w1"), chaos.worker("w2")]
        with first.api() as api:
            running = chaos.submit(api, "slow")
        stream = Stream(chaos, "quick", pause_s=0.1)
        wait_for(lambda: len(stream.acknowledged) >= 10, "a stream of submissions")
        with first.api() as api:
            finished(api, stream.acknowledged[0])  # so that there are artifacts to keep
        before = [running, *stream.acknowledged]
        made = ktrdr("backup", "create", str(archive), "--json", env=first.environment())
        assert made.returncode == 0, made.stderr
        assert len(stream.stop()) > len(before) - 1, "nothing was submitted meanwhile"
        for part in (backend, *workers):
            part.kill()
        no_tracebacks(first)

    there = {"KTRDR_HOME": str(home)}
    restored = ktrdr("backup", "restore", str(archive), env=first.environment(**there))
    assert restored.returncode == 0, restored.stderr
    assert integrity(home) == "ok"
    operations = asyncio.run(_operations(home))
    assert set(before) <= set(operations), "acknowledged before the backup began, and lost"
    assert json.loads(made.stdout)["rows"]["operations"] == len(operations)
    store = FileArtifactStore(home / "artifacts")
    kept = [digest for operation in operations.values() for digest in operation.artifacts.values()]
    assert kept
    assert all(store.intact(digest) for digest in kept)

    with parts(tmp_path / "second", measured=False) as second:
        second.home = home
        second.backend(**there)
        chaos.parts = second
        chaos.worker("w3", wait=False, home=tmp_path / "elsewhere")  # it may be busy at once
        with second.api() as api:
            api.post(f"/operations/{running}/cancel")  # it would run for a quarter of an hour
            waiting = [name for name, operation in operations.items() if name != running]
            views = ended(api, [*waiting, running])
        assert views[running]["status"] == "cancelled"
        assert Counter(views[name]["status"] for name in waiting) == {
            "completed": len(waiting) - 2,  # and the two that were cancelled before they began
            "cancelled": 2,
        }
        no_tracebacks(second)
