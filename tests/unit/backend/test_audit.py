"""The audit record: every change and refusal by name, durable, bounded, without secrets."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ktrdr.backend.access.actions import ACTIONS, UNRECORDED
from ktrdr.backend.access.audit import AuditLog
from ktrdr.backend.access.scopes import ROUTES
from ktrdr.errors import InvalidInput
from ktrdr.operations.model import OperationType
from ktrdr.testing.clock import FakeClock
from support.control_plane import ControlPlane

ADMIN = {"authorization": "Bearer bootstrap-word"}


@pytest_asyncio.fixture
async def secured(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    plane = ControlPlane(tmp_path)
    plane.config = dataclasses.replace(
        plane.config, api_token="bootstrap-word", worker_token="enrolment-word", loopback_only=False
    )
    async with plane.running():
        yield plane


async def recorded(plane: ControlPlane, **headers: str) -> list[dict[str, Any]]:
    """Oldest first."""
    answer = await plane.api("GET", "/audit", **headers)
    return list(reversed(answer["entries"]))


def test_every_route_that_changes_something_has_a_name() -> None:
    changing = {route for route in ROUTES if route.split()[0] in ("POST", "PUT", "PATCH", "DELETE")}
    assert set(ACTIONS) | UNRECORDED == changing
    assert not set(ACTIONS) & UNRECORDED


async def test_what_a_token_does_is_told_by_its_name(secured: ControlPlane) -> None:
    made = await secured.api("POST", "/tokens", {"name": "maria", "scopes": ["submit"]}, **ADMIN)
    maria = {"authorization": f"Bearer {made['token']}"}
    name = await secured.submit()
    assert (await secured.ask("POST", f"/api/v1/operations/{name}/cancel", **maria)).status == 202
    assert (await secured.ask("DELETE", f"/api/v1/operations/{name}", **maria)).status == 204
    assert (await secured.ask("DELETE", f"/api/v1/operations/{name}", **maria)).status == 404
    assert (await secured.ask("DELETE", "/api/v1/tokens/maria", **maria)).status == 403
    assert (await secured.ask("DELETE", "/api/v1/tokens/maria", **ADMIN)).status == 204
    assert (await secured.ask("DELETE", "/api/v1/tokens/maria", **maria)).status == 401  # who is that?
    await secured.api("GET", "/operations", **ADMIN)
    entries = await recorded(secured, **ADMIN)
    assert [(e["who"], e["what"], e["subject"], e["outcome"]) for e in entries] == [
        ("bootstrap", "token.create", "maria", 201),
        ("maria", "operation.cancel", name, 202),
        ("maria", "operation.delete", name, 204),
        ("maria", "operation.delete", name, 404),
        ("maria", "token.revoke", "maria", 403),
        ("bootstrap", "token.revoke", "maria", 204),
    ]
    assert {e["address"] for e in entries} == {"127.0.0.1"}
    kept = (secured.config.home / "audit" / "audit.jsonl").read_bytes()
    assert made["token"].rpartition("_")[2].encode() not in kept
    assert b"bootstrap-word" not in kept
    assert (secured.config.home / "audit" / "audit.jsonl").stat().st_mode & 0o777 == 0o600


async def test_a_submission_names_its_operation_and_a_retry_both(stocked: ControlPlane) -> None:
    started = await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"})
    name = started["operation_id"]
    await stocked.api("POST", f"/operations/{name}/cancel")
    await stocked.until(name, "cancelling")
    await stocked.deliver(stocked.workers["t1"], name, "cancelled")
    again = await stocked.api("POST", f"/operations/{name}/retry")
    entries = await recorded(stocked)
    told = [
        (e["who"], e["what"], e["subject"], e["detail"]) for e in entries if e["what"].startswith("operation")
    ]
    assert told == [
        ("loopback", "operation.submit", name, ""),
        ("loopback", "operation.cancel", name, ""),
        ("loopback", "operation.retry", name, again["operation_id"]),
    ]
    assert ("loopback", "worker.report", "t1", f"{name} attempt 1 cancelled") in [
        (e["who"], e["what"], e["subject"], e["detail"]) for e in entries
    ]


async def test_of_what_workers_say_changes_are_recorded_and_refusals(secured: ControlPlane) -> None:
    enrol = {"authorization": "Bearer enrolment-word"}
    worker = secured.machine("w")
    for _ in range(3):
        await secured.api("POST", "/workers/register", worker.registration(), **enrol)
    await secured.api("POST", "/workers/w/report", worker.report(), **enrol)
    secured.unplug(worker)
    worker.restart()
    assert (
        await secured.ask("POST", "/api/v1/workers/register", worker.registration(), **enrol)
    ).status == 422
    secured.plug(worker)
    await secured.api("POST", "/workers/register", worker.registration(), **enrol)
    there = secured.machine("w")
    assert (
        await secured.ask("POST", "/api/v1/workers/register", there.registration(), **enrol)
    ).status == 409
    await secured.api("POST", "/workers/w/drain", **ADMIN)
    entries = await recorded(secured, **ADMIN)
    assert [(e["who"], e["what"], e["subject"], e["detail"], e["outcome"]) for e in entries] == [
        ("enrolment", "worker.register", "w", "w-1", 200),
        ("enrolment", "worker.register", "w", "w-2", 200),
        ("enrolment", "worker.register", "w", "w-1", 409),
        ("bootstrap", "worker.drain", "w", "", 200),
    ]


async def test_pauses_and_wholesale_cancels_say_what_they_concerned(plane: ControlPlane) -> None:
    await plane.submit(OperationType.TRAINING)
    await plane.api("POST", "/queue/pause", {"operation_type": "training"})
    await plane.api("POST", "/queue/unpause", {})
    await plane.api("POST", "/operations/cancel", {})
    told = [(e["what"], e["subject"]) for e in await recorded(plane)]
    assert told == [("queue.pause", "training"), ("queue.unpause", "all"), ("operations.cancel", "all")]


async def test_pages_and_since(plane: ControlPlane) -> None:
    for number in range(5):
        await plane.api("POST", "/tokens", {"name": f"t{number}", "scopes": ["read"]})
        plane.clock.advance(60)
    seen, cursor = [], ""
    while True:
        page = await plane.api("GET", f"/audit?limit=2{cursor}")
        seen += [e["subject"] for e in page["entries"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["t4", "t3", "t2", "t1", "t0"]
    moment = (plane.clock.now() - timedelta(seconds=130)).isoformat().replace("+", "%2B")
    page = await plane.api("GET", f"/audit?since={moment}")
    assert [e["subject"] for e in page["entries"]] == ["t4", "t3"]
    for wrong in ("nonsense", "audit.jsonl:x", "../etc/passwd:3", "ledger.db:3"):
        assert (await plane.ask("GET", f"/api/v1/audit?cursor={wrong}")).status == 422


def entry(log: AuditLog, subject: str) -> None:
    log.append(who="w", address="a", what="x", subject=subject, outcome=200)


async def subjects(log: AuditLog) -> list[str]:
    return [e.subject for e in (await log.page(None, 10_000, None)).entries]


async def test_files_are_begun_anew_and_the_oldest_go(tmp_path: Path) -> None:
    clock = FakeClock()
    log = AuditLog(tmp_path, clock, file_bytes=1000, files=3)
    for number in range(100):
        entry(log, f"{number:03d}")
        clock.advance(1)
    kept = await subjects(log)
    assert kept == [f"{number:03d}" for number in range(99, 99 - len(kept), -1)]
    assert 20 < len(kept) < 60
    assert len(os.listdir(tmp_path)) == 4
    assert all(path.stat().st_size < 1200 for path in [tmp_path / name for name in os.listdir(tmp_path)])
    first = await log.page(None, len(kept) - 5, None)
    rest = await log.page(None, 100, first.next_cursor)
    assert [e.subject for e in (*first.entries, *rest.entries)] == kept
    await log.close()


@pytest.mark.parametrize(
    "before", range(20, 30)
)  # with as many the newest file is empty, half full, full ...
async def test_pages_go_on_where_they_were_though_files_are_begun_anew_meanwhile(
    tmp_path: Path, before: int
) -> None:
    """Each entry there was is on one page, and none that came later: the file being read has another name now."""
    clock, cursor = FakeClock(), None
    log = AuditLog(tmp_path, clock, file_bytes=1000, files=50)
    turned: list[str] = []
    for number in range(before):
        entry(log, f"{number:03d}")
        clock.advance(1)
    while True:
        page = await log.page(None, 2, cursor)
        turned += [e.subject for e in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
        for number in range(12):
            entry(log, f"later-{number}")
            clock.advance(1)
    assert turned == [f"{number:03d}" for number in range(before - 1, -1, -1)]
    await log.close()


async def test_pages_end_where_what_comes_next_was_removed(tmp_path: Path) -> None:
    clock = FakeClock()
    log = AuditLog(tmp_path, clock, file_bytes=1000, files=2)
    for number in range(5):
        entry(log, f"{number:03d}")
    page = await log.page(None, 2, None)
    for number in range(100):
        entry(log, f"later-{number}")
        clock.advance(1)
    rest = await log.page(None, 100, page.next_cursor)
    assert (rest.entries, rest.next_cursor) == ((), None)
    await log.close()


async def test_a_torn_line_costs_no_other(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, FakeClock())
    entry(log, "before")
    await log.close()
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"at": "2026-01-01T00:0')
    again = AuditLog(tmp_path, FakeClock())
    entry(again, "after")
    assert await subjects(again) == ["after", "before"]
    await again.close()


async def test_hostile_words_stay_in_their_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, FakeClock())
    words = ['"}\n{"who": "root"', "\u2028\u202e\x00\x1b[31m", "ü" * 1000]
    for word in words:
        entry(log, word)
    assert await subjects(log) == [word[:200] for word in reversed(words)]
    assert len((tmp_path / "audit.jsonl").read_bytes().splitlines()) == 3
    await log.close()


async def test_an_entry_outlives_the_process_at_once_and_reaches_the_disk_within_a_second(
    tmp_path: Path,
) -> None:
    log = AuditLog(tmp_path, FakeClock())
    entry(log, "one")
    assert json.loads((tmp_path / "audit.jsonl").read_text())["subject"] == "one"
    assert log._syncing is not None
    await asyncio.wait_for(log._syncing, 10)
    await log.close()


async def test_a_disk_that_takes_no_more_does_not_stop_the_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit").write_text("in the way")
    log = AuditLog(tmp_path / "audit", FakeClock())
    entry(log, "seen in the log instead")
    assert "The audit record cannot be written" in caplog.text
    assert "seen in the log instead" in caplog.text
    with pytest.raises(InvalidInput):
        await log.page(None, 1, "x")
    await log.close()
