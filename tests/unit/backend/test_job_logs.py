"""What jobs print, at the backend: pulled while they run, kept when workers go, one text over all attempts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import NewOperation, Operation, OperationType
from ktrdr.testing.fake_worker import FakeWorker
from support.control_plane import ControlPlane, settle, spec_of

LIMIT = 4 << 20


async def _running(plane: ControlPlane, text: bytes = b"one\ntwo\n") -> tuple[FakeWorker, str]:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.logs[name] = text
    return worker, name


async def _read(plane: ControlPlane, name: str, query: str = "") -> bytes:
    answer = await plane.ask("GET", f"/api/v1/operations/{name}/logs{query}")
    assert answer.ok, answer.body
    return answer.body


async def test_a_running_job_is_read_in_pieces_and_no_byte_twice(plane: ControlPlane) -> None:
    worker, name = await _running(plane, b"0123456789")  # the fake worker sends four bytes at a time
    assert await _read(plane, name) == b"0123456789"
    worker.logs[name] += b"abc"
    assert await _read(plane, name) == b"0123456789"  # not older than the TTL
    plane.clock.advance(1.0)
    assert await _read(plane, name) == b"0123456789abc"


async def test_what_the_worker_did_not_keep_is_told(plane: ControlPlane) -> None:
    worker, name = await _running(plane, b"0123456789")
    worker.holes[name] = (4, 7)
    assert await _read(plane, name) == b"0123\n[... 3 bytes are left out here ...]\n789"
    worker.logs[name] += b"abc"
    plane.clock.advance(1.0)
    assert (await _read(plane, name)).endswith(b"\n789abc")


async def test_tail_offset_and_size(plane: ControlPlane) -> None:
    _, name = await _running(plane, b"one\ntwo\nthree")
    assert await _read(plane, name, "?tail=2") == b"two\nthree"
    assert await _read(plane, name, "?tail=0") == b""
    assert await _read(plane, name, "?tail=99") == b"one\ntwo\nthree"
    assert await _read(plane, name, "?offset=4") == b"two\nthree"
    assert await _read(plane, name, "?offset=99") == b""
    answer = await plane.ask("GET", f"/api/v1/operations/{name}/logs?tail=1")
    assert answer.headers["x-log-size"] == "13"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert f'filename="{name}.log"' in answer.headers["content-disposition"]
    for wrong in ("?tail=-1", "?tail=1&offset=1", "?offset=x"):
        assert (await plane.ask("GET", f"/api/v1/operations/{name}/logs{wrong}")).status == 422
    assert (await plane.ask("GET", "/api/v1/operations/nobody/logs")).status == 404


async def test_a_probe_pulls_so_the_log_outlives_the_worker(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    await plane.probe()
    plane.unplug(worker)
    assert await _read(plane, name) == b"one\ntwo\n"
    filed = [*plane.backend.config.home.glob("job-logs/*/*.log")]
    assert [file.stat().st_mode & 0o077 for file in filed] == [0]
    await plane.api("POST", f"/operations/{name}/cancel")
    plane.clock.advance(120.0)
    await plane.probe()  # the lease has ended
    assert await plane.status(name) == "cancelled"
    assert await _read(plane, name) == b"one\ntwo\n"


async def test_who_read_of_it_before_its_end_leaves_nothing_behind(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    before = await plane.store.get(name)
    assert await plane.backend.logs.read(before) == b"one\ntwo\n"
    assert list(plane.backend.logs._live) == [name]
    await plane.deliver(worker, name)
    assert await plane.backend.logs.read(before) == b"one\ntwo\n"
    assert list(plane.backend.logs._live) == []


async def test_logs_of_dead_jobs_stand_before_that_of_the_last(plane: ControlPlane) -> None:
    worker, name = await _running(plane, b"")
    for attempt in (1, 2):
        log = plane.put(f"attempt {attempt}".encode())
        if attempt == 2:
            await plane.until(name, "running")
        delivered = {"artifacts": {"log": log}, "error": "SIGSEGV"}
        await plane.deliver(worker, name, "child_died", **delivered)
        if attempt == 1:
            assert await _read(plane, name) == b"attempt 1"
    assert await plane.status(name) == "failed"
    assert await _read(plane, name) == b"attempt 1\nattempt 2"
    assert await _read(plane, name, "?tail=1") == b"attempt 2"


async def test_the_end_of_a_released_attempt_is_kept_and_the_last_is_not_told_twice(
    plane: ControlPlane,
) -> None:
    worker, name = await _running(plane, b"first\n")
    assert await _read(plane, name) == b"first\n"
    await plane.deliver(worker, name, "released", artifacts={"log": plane.put(b"first\nreleased\n")})
    await plane.until(name, "running")
    worker.logs[name] = b"second\n"
    plane.clock.advance(1.0)
    assert await _read(plane, name) == b"first\nreleased\nsecond\n"
    await plane.deliver(worker, name, artifacts={"log": plane.put(b"second\ndone\n")})
    assert await _read(plane, name) == b"first\nreleased\nsecond\ndone\n"


async def test_only_the_newest_attempts_are_kept(plane: ControlPlane) -> None:
    worker, name = await _running(plane, b"")
    for number in range(8):
        await plane.until(name, "running")
        log = {"log": plane.put(b"%d\n" % number)}
        await plane.deliver(worker, name, "released", artifacts=log)
    assert await _read(plane, name) == b"3\n4\n5\n6\n7\n"


async def test_a_deleted_operation_takes_its_log_with_it(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    await _read(plane, name)
    folder = plane.config.home / "job-logs" / name
    assert folder.is_dir()
    await plane.deliver(worker, name, "failed", error="it broke")
    await plane.api("DELETE", f"/operations/{name}")
    assert not folder.exists()


class _Standing(MemoryStore):
    """A ledger that does not say which operations there are, until ``gate`` opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def get(self, operation_id: str) -> Operation:
        await self.gate.wait()
        return await super().get(operation_id)


async def test_what_the_ledger_does_not_know_is_removed_and_no_start_waits_for_it(tmp_path: Path) -> None:
    for name in ("gone", "op-1"):
        (tmp_path / "job-logs" / name).mkdir(parents=True)
    store = _Standing()
    plane = ControlPlane(tmp_path, store=store)
    kind = OperationType.BACKTESTING
    new = NewOperation(operation_id="op-1", operation_type=kind, spec=spec_of(kind))
    await plane.store.submit(new, plane.clock.now())

    async def kept() -> list[str]:
        return sorted(path.name for path in (tmp_path / "job-logs").iterdir())

    async with asyncio.timeout(60), plane.running():
        await plane.join("w1")
        assert await kept() == ["gone", "op-1"]
        store.gate.set()
        await settle(kept, lambda names: names == ["op-1"])


async def test_a_new_backend_pulls_from_the_beginning(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        worker, name = await _running(plane)
        assert await _read(plane, name) == b"one\ntwo\n"
    worker.logs[name] += b"three\n"
    async with plane.running():
        await plane.probe()
        assert await _read(plane, name) == b"one\ntwo\nthree\n"


async def test_a_disk_that_takes_nothing_costs_lines_and_no_operation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "job-logs").write_text("a file where the folder should be")
    async with ControlPlane(tmp_path).running() as plane:
        worker, name = await _running(plane)
        assert await _read(plane, name) == b""
        log = {"log": plane.put(b"died\n")}
        await plane.deliver(worker, name, "child_died", error="SIGKILL", artifacts=log)
        await plane.until(name, "running")
        await plane.deliver(worker, name, artifacts={"log": plane.put(b"the end\n")})
        assert await _read(plane, name) == b"the end\n"
    assert "A job's log cannot be kept" in caplog.text


async def test_another_attempts_log_is_not_mistaken_for_this_one(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs[name].attempt = 7
    assert await _read(plane, name) == b""


async def test_a_flood_is_cut_and_says_so(plane: ControlPlane) -> None:
    _, name = await _running(plane, b"a" * (2 * LIMIT) + b"z" * LIMIT)
    shown = await _read(plane, name)
    assert shown.startswith(b"aaaa\n[... %d bytes are left out here ...]\nzzzz" % (2 * LIMIT - 4))
    assert len(shown) < LIMIT


async def test_a_long_log_is_kept_to_its_end(plane: ControlPlane) -> None:
    worker, name = await _running(plane, b"")
    worker.piece = LIMIT
    for letter in (b"a", b"b", b"c"):
        worker.logs[name] += letter * (LIMIT - 1) + b"\n"
        plane.clock.advance(1.0)
        shown = await _read(plane, name)
    assert shown == b"c" * (LIMIT - 1) + b"\n"
    worker.logs[name] += b"d"
    plane.clock.advance(1.0)
    assert (await _read(plane, name))[-3:] == b"c\nd"
