"""The fleet at a glance: what is told of the queue, operations and workers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ktrdr.cli.app import run
from support.scripted_backend import Said, scripted

PAUSED = [{"operation_type": "training", "since": "2026-01-31T14:05:00Z"}]
QUEUE = {
    "paused": PAUSED,
    "operations": {"training": {"failed": 2, "pending": 1200}, "backtesting": {}},
}
WORKERS = {
    "total_workers": 2,
    "by_status": {"draining": 1, "available": 1},
    "by_type": {"training": 2},
    "workers": [
        {"id": "t1", "type": "training", "status": "draining", "current_operation": "op_1"},
        {"id": "t2", "type": "training", "status": "available", "current_operation": None},
    ],
}
TOLD = """\
queue       Paused: training since 2026-01-31 14:05 UTC. 'ktrdr operations unpause' lets them go.
operations  backtesting: none
operations  training: 1,200 pending, 2 failed
workers     1 available, 1 draining
            t1 is draining, holds op_1
"""


def answer(_method: str, path: str) -> Said:
    if path.startswith("/api/v1/operations"):
        operation: dict[str, Any] = {
            "operation_id": "op_1", "operation_type": "training", "status": "pending", "worker_id": None,
            "progress": {"percentage": 0.0}, "created_at": "2026-01-31T14:05:00Z", "error": None,
        }  # fmt: skip
        return Said({"operations": [operation], "total": 1, "next_cursor": None})
    return Said(WORKERS if path == "/api/v1/metrics/workers" else QUEUE)


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(answer) as backend:
        assert run(["status", "--api-url", backend.url]) == 0
        assert capsys.readouterr().out == TOLD
        assert run(["status", "--json", "--api-url", backend.url]) == 0
        assert json.loads(capsys.readouterr().out) == {"queue": QUEUE, "workers": WORKERS}


def test_status_after_a_restart_says_who_has_not_answered_yet(capsys: pytest.CaptureFixture[str]) -> None:
    """What the ledger says of a worker may be long gone: after a restore every one is "available"."""
    rows = [row | {"seen": row["id"] == "t1"} for row in WORKERS["workers"]]
    said = {"/api/v1/metrics/workers": Said(WORKERS | {"workers": rows}), "/api/v1/queue": Said(QUEUE)}
    with scripted(lambda _, path: said[path]) as backend:
        assert run(["status", "--api-url", backend.url]) == 0
    assert "workers     1 available, 1 draining (1 not seen yet)\n" in capsys.readouterr().out


def test_a_list_with_waiting_operations_says_that_they_are_paused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with scripted(answer) as backend:
        assert run(["operations", "list", "--api-url", backend.url]) == 0
    assert "Paused: training since" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"), [(["--type", "training"], "Paused: training"), ([], "The queue is open.")]
)
def test_pause_and_unpause(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = "pause" if arguments else "unpause"
    with scripted(lambda *_: Said(QUEUE if arguments else QUEUE | {"paused": []})) as backend:
        assert run(["operations", command, *arguments, "--api-url", backend.url]) == 0
        assert backend.asked == [("POST", f"/api/v1/queue/{command}")]
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "verb"), [([], "Removed"), (["--dry-run"], "Would remove")])
def test_garbage_is_counted(arguments: list[str], verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"removed": 1200, "removed_bytes": 5, "waiting": 2, "kept": 3, "dry_run": bool(arguments)}
    with scripted(lambda *_: Said(found)) as backend:
        assert run(["artifacts", "gc", *arguments, "--api-url", backend.url]) == 0
        assert backend.asked == [("POST", "/api/v1/artifacts/gc")]
    assert capsys.readouterr().out.startswith(f"{verb} 1,200 artifacts (5 bytes); 2 without a")


def test_a_worker_is_shown_with_what_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    worker = {
        "worker_id": "w1", "status": "draining", "reason": "It finishes what it runs and takes no more.",
        "capabilities": {"cores": 4, "gpu": False}, "metadata": {}, "recent_operations": ["op_1"],
    }  # fmt: skip
    ran = [{"operation_id": "op_1", "status": "failed", "attempt": 2, "error": "it broke"}]

    def said(_method: str, path: str) -> Said:
        return Said({"operations": ran, "total": 1} if "/operations" in path else worker)

    with scripted(said) as backend:
        assert run(["workers", "show", "w1", "--api-url", backend.url]) == 0
        told = capsys.readouterr().out
        assert run(["workers", "show", "w1", "--json", "--api-url", backend.url]) == 0
        assert json.loads(capsys.readouterr().out) == {**worker, "operations": ran}
        assert ("GET", "/api/v1/operations?worker_id=w1&limit=10") in backend.asked
    assert "status     draining\n" in told
    assert "machine    cores 4\n" in told
    assert told.endswith("operations:\n  op_1 failed, attempt 2: it broke\n")


@pytest.mark.parametrize(
    ("more", "shown"),
    [({"seen": False}, "available (not seen yet)"), ({"seen": True}, "available"), ({}, "available")],
)
def test_a_worker_that_a_restarted_backend_did_not_see_yet(
    more: dict[str, bool], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backend of an earlier version does not say."""
    worker = {
        "worker_id": "w1", "worker_type": "training", "status": "available", "current_operation_id": None,
        "capabilities": {"cores": 4, "gpu_type": None}, "endpoint_url": "http://x:1",
    } | more  # fmt: skip
    with scripted(lambda *_: Said({"workers": [worker], "total": 1})) as backend:
        assert run(["workers", "list", "--api-url", backend.url]) == 0
    told = capsys.readouterr().out
    assert (shown in told, "(not seen yet)" in told) == (True, "not seen" in shown)
