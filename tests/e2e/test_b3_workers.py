"""Scenarios B3: a worker alone, and backend to worker (docs/testing/scenarios/B3-workers.md)."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ktrdr.errors import NotFound
from support.processes import advancing, descendants, finished, in_status, wait_for
from support.strategies import endless_training

BODY = {"strategy_name": "sp500_trend", "start_date": "2014-01-01"}


def _spec(fleet: Any) -> Any:
    started = fleet.api.post("/backtests/start", BODY)
    finished(fleet.api, started["operation_id"])
    return fleet.api.get(f"/operations/{started['operation_id']}/spec")


@pytest.mark.usefixtures("trained")
def test_b3_1_worker_direct_start(fleet: Any) -> None:
    spec = _spec(fleet)
    with httpx.Client(base_url=fleet.endpoint("bt-1"), timeout=60, trust_env=False) as worker:
        answer = worker.post("/backtests/start", json=spec)
        assert answer.status_code == 202, answer.text
        operation_id = answer.json()["operation_id"]

        def done() -> Any:
            view = worker.get(f"/api/v1/operations/{operation_id}").json()
            return view if view["status"] in ("completed", "failed", "cancelled") else None

        assert wait_for(done, "the worker's own operation ends")["status"] == "completed"


@pytest.mark.usefixtures("trained")
def test_b3_2_backend_to_worker_full_flow(fleet: Any, tmp_path: Path) -> None:
    """A worker of another home and working directory has only the backend's URL."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("bt-1", "bt-2", "bt-3"):
        fleet.api.post(f"/workers/{name}/drain")
    worker = fleet.parts.worker("backtesting", "stranger", home=tmp_path / "home", cwd=elsewhere)
    try:
        started = fleet.api.post("/backtests/start", BODY)
        operation = finished(fleet.api, started["operation_id"])
        assert (operation["status"], operation["worker_id"]) == ("completed", "stranger"), operation
        ended = time.monotonic()
        fleet.parts.wait_worker("stranger", "available")
        # The promise is half a second; the probe's period is shorter here, so only a gross failure is told by time.
        assert time.monotonic() - ended < 10
        assert fleet.api.get(f"/operations/{started['operation_id']}/results")["result"]["statistics"]
        assert any((tmp_path / "home").rglob("artifacts/*/*"))
    finally:
        assert worker.stop() == 0
        with contextlib.suppress(NotFound):  # it may have been forgotten already
            fleet.api.delete("/workers/stranger")
        for name in ("bt-1", "bt-2", "bt-3"):
            fleet.api.post(f"/workers/{name}/undrain")


@pytest.mark.usefixtures("trained")
def test_a_finished_worker_takes_the_next_operation_at_once(fleet: Any) -> None:
    """The slot is freed by the worker's own report. Judged by the ledger's stamps, which no polling delays: with one
    worker left, the second operation is assigned within half a second of the end of the first (the best of a dozen at
    most, because this machine may be busy with other things)."""
    for name in ("bt-2", "bt-3"):
        fleet.api.post(f"/workers/{name}/drain")
    try:
        gaps = list[float]()
        while min(gaps, default=1.0) >= 0.5 and len(gaps) < 12:
            ids = [fleet.api.post("/backtests/start", BODY)["operation_id"] for _ in range(2)]
            first, second = (finished(fleet.api, operation_id) for operation_id in ids)
            assert first["worker_id"] == second["worker_id"] == "bt-1"
            ended = datetime.fromisoformat(first["completed_at"])
            assigned = next(line for line in second["story"] if "assigned" in line).split()[0]
            gaps.append((datetime.fromisoformat(assigned) - ended).total_seconds())
        assert min(gaps) < 0.5, gaps
    finally:
        for name in ("bt-2", "bt-3"):
            fleet.api.post(f"/workers/{name}/undrain")


def test_b3_3_backend_to_worker_progress(fleet: Any) -> None:
    started = fleet.api.post("/trainings/start", {"strategy": endless_training()})
    operation_id = started["operation_id"]
    in_status(fleet.api, operation_id, "running")
    seen: list[int] = []
    records: list[dict[str, Any]] = []
    cursor = 0

    def enough() -> bool:
        nonlocal cursor
        progress = fleet.api.get(f"/operations/{operation_id}")["progress"]
        seen.append(progress["items_done"])
        page = fleet.api.get(f"/operations/{operation_id}/metrics", cursor=cursor)
        assert page["next_cursor"] == cursor + len(page["epochs"])
        records.extend(page["epochs"])
        cursor = page["next_cursor"]
        return len(records) >= 5 and len(set(seen)) >= 3

    wait_for(enough, "progress and metrics advance")
    assert seen == sorted(seen)
    assert [r["epoch"] for r in records] == list(range(1, len(records) + 1))
    context = fleet.api.get(f"/operations/{operation_id}")["progress"]["context"]
    assert {"epoch", "total_epochs", "train_loss", "val_loss"} <= set(context)


def test_b3_4_backend_to_worker_cancel(fleet: Any) -> None:
    worker = fleet.workers["train-1"]
    before = {p.pid for p in descendants(worker.pid)}
    started = fleet.api.post("/trainings/start", {"strategy": endless_training()})
    advancing(fleet.api, started["operation_id"])
    children = [p for p in descendants(worker.pid) if p.pid not in before]
    assert children
    fleet.api.post(f"/operations/{started['operation_id']}/cancel")
    with httpx.Client(timeout=60, trust_env=False) as http:
        assert http.get(f"{fleet.endpoint('train-1')}/health").status_code == 200
    assert finished(fleet.api, started["operation_id"])["status"] == "cancelled"
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert gone
    assert not alive


@pytest.mark.usefixtures("trained")
def test_b3_5_worker_busy(fleet: Any, slow_backtest: dict[str, Any]) -> None:
    started = fleet.api.post("/backtests/start", slow_backtest)
    spec = fleet.api.get(f"/operations/{started['operation_id']}/spec")
    fleet.api.post(f"/operations/{started['operation_id']}/cancel")
    finished(fleet.api, started["operation_id"])
    fleet.parts.wait_worker("bt-2", "available")
    endpoint = fleet.endpoint("bt-2")

    def start(_: int) -> httpx.Response:
        return httpx.post(f"{endpoint}/backtests/start", json=spec, trust_env=False, timeout=60)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(start, range(4)))
    assert sorted(a.status_code for a in answers) == [202, 503, 503, 503]
    accepted = next(a for a in answers if a.status_code == 202).json()["operation_id"]
    for refused in (a for a in answers if a.status_code == 503):
        assert refused.headers["content-type"].startswith("application/problem+json")
        assert accepted in refused.json()["detail"]
    httpx.delete(f"{endpoint}/api/v1/operations/{accepted}/cancel", timeout=60, trust_env=False)
    fleet.parts.wait_worker("bt-2", "available")
