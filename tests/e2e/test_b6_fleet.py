"""Scenarios B6: the fleet (docs/testing/scenarios/B6-fleet.md)."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from ktrdr.errors import NoWorkers
from support.ports import kept_port
from support.processes import (
    CALM,
    Parts,
    advancing,
    descendants,
    environment,
    finished,
    in_status,
    ktrdr,
    wait_for,
)
from support.strategies import endless_training

GPU_WORKER = Path(__file__).parents[1] / "support" / "gpu_worker.py"
BACKTEST = {"strategy_name": "sp500_trend", "start_date": "2014-01-01"}


def test_b6_1_worker_lost_back_removed(alone: Parts) -> None:
    alone.backend()
    worker = alone.worker("backtesting", "w1")
    worker.signal(signal.SIGSTOP)
    lost = alone.wait_worker("w1", "temporarily_unavailable")
    assert lost["health_check_failures"] >= 2
    worker.signal(signal.SIGCONT)
    back = alone.wait_worker("w1", "available")
    assert back["health_check_failures"] == 0
    worker.kill()
    alone.wait_worker("w1", None)


def test_b6_2_missing_api_url(alone: Parts) -> None:
    env = environment(alone.home)
    env.pop("KTRDR_API_URL", None)
    done = ktrdr("worker", "start", "backtesting", env=env)
    assert done.returncode == 2
    assert "KTRDR_API_URL" in done.stderr
    assert "http://" in done.stderr


def test_b6_3_endpoint_priority(alone: Parts) -> None:
    alone.backend()
    port = kept_port()
    url = f"http://localhost:{port}"
    arguments = ["worker", "start", "backtesting", "--api-url", alone.url, "--port", str(port)]
    named = alone.start("named", arguments, {"WORKER_ID": "named", "WORKER_ENDPOINT_URL": url})
    assert alone.wait_worker("named", "available", named)["endpoint_url"].rstrip("/") == url
    detected = alone.start(
        "detected",
        ["worker", "start", "backtesting", "--api-url", alone.url, "--port", "0"],
        {"WORKER_ID": "detected"},
    )
    assert alone.wait_worker("detected", "available", detected)["endpoint_url"].startswith(
        "http://127.0.0.1:"
    )


def test_b6_4_default_start_logs_no_warning(alone: Parts) -> None:
    backend = alone.backend(**CALM)
    workers = [alone.worker("backtesting", "b1"), alone.worker("training", "t1")]
    for part in (*workers, backend):  # in this order: that a backend is away is worth a warning
        assert part.stop() == 0
        lines = [
            line for line in part.text().splitlines() if not re.search(r"Worker \w+ is unavailable", line)
        ]
        assert not re.search(r"warn|error|traceback|critical", "\n".join(lines), re.IGNORECASE), part.text()


def test_b6_5_backtest_without_workers(alone: Parts) -> None:
    alone.backend()
    alone.worker("training", "t1")
    with alone.api() as api:
        api.post("/data/samples")
        trained = api.post("/trainings/start", {"strategy_name": "sp500_trend"})
        assert finished(api, trained["operation_id"])["status"] == "completed"
        with pytest.raises(
            NoWorkers, match=r"No backtesting workers available\. Start one: ktrdr worker start backtesting"
        ):
            api.post("/backtests/start", BACKTEST)
        assert api.get("/operations", operation_type="backtesting")["total"] == 0
    done = ktrdr("backtest", "run", "--strategy", "sp500_trend", env=alone.environment())
    assert done.returncode == 1
    assert "ktrdr worker start backtesting" in done.stderr


def test_b6_6_training_without_gpu_goes_to_cpu(fleet: Any, trained: Any) -> None:
    assert trained["worker_id"] == "train-1"
    capabilities = fleet.api.get("/workers/train-1")["capabilities"]
    if capabilities["gpu"]:
        pytest.skip("this machine has a GPU; B6.7 covers the choice")
    assert trained["status"] == "completed"


def test_b6_7_gpu_worker_first(alone: Parts) -> None:
    """The capability is declared by the test's own program; selection and dispatch are the real ones."""
    alone.backend()
    alone.worker("training", "cpu")
    gpu = alone.start(
        "gpu",
        [],
        {"WORKER_ID": "gpu", "KTRDR_API_URL": alone.url, "WORKER_PORT": "0"},
        program=(str(GPU_WORKER),),
    )
    assert alone.wait_worker("gpu", "available", gpu)["capabilities"]["gpu_type"] == "CUDA"
    with alone.api() as api:
        api.post("/data/samples")
        placed = []
        for _ in range(2):
            started = api.post("/trainings/start", {"strategy": endless_training()})
            placed.append(in_status(api, started["operation_id"], "running"))
        assert [operation["worker_id"] for operation in placed] == ["gpu", "cpu"]
        for operation in placed:
            api.post(f"/operations/{operation['operation_id']}/cancel")
            assert finished(api, operation["operation_id"])["status"] == "cancelled"
        again = api.post("/trainings/start", {"strategy_name": "sp500_trend", "require_gpu": True})
        assert finished(api, again["operation_id"])["worker_id"] == "gpu"


def test_b6_8_training_without_workers(alone: Parts) -> None:
    alone.backend()
    alone.worker("backtesting", "b1")
    with alone.api() as api:
        api.post("/data/samples")
        with pytest.raises(
            NoWorkers,
            match=r"No training workers available\. Start GPU or CPU training workers: ktrdr worker start training",
        ):
            api.post("/trainings/start", {"strategy_name": "sp500_trend"})
        assert api.get("/operations")["total"] == 0


@pytest.mark.usefixtures("trained")
def test_b6_9_five_backtests_on_three_workers(fleet: Any) -> None:
    ids = [fleet.api.post("/backtests/start", BACKTEST)["operation_id"] for _ in range(5)]
    done = [finished(fleet.api, operation_id) for operation_id in ids]
    assert [o["status"] for o in done] == ["completed"] * 5
    assert {o["worker_id"] for o in done} <= {"bt-1", "bt-2", "bt-3"}
    assert {o["attempt"] for o in done} == {1}


def test_b6_10_backend_restart_adopts(alone: Parts) -> None:
    backend = alone.backend(**CALM)
    worker = alone.worker("training", "t1")
    with alone.api() as api:
        api.post("/data/samples")
        started = api.post("/trainings/start", {"strategy": endless_training()})
        shown = advancing(api, started["operation_id"])["progress"]["items_done"]
    children = {p.pid for p in descendants(worker.pid)}
    worker.signal(signal.SIGSTOP)  # so that it tells the next backend nothing of its progress
    backend.kill()
    alone.backend(**CALM)
    with alone.api() as api:
        assert api.get(f"/operations/{started['operation_id']}")["progress"]["items_done"] >= shown
        worker.signal(signal.SIGCONT)
        view = in_status(api, started["operation_id"], "running")
        assert view["attempt"] == 1
        epoch = view["progress"]["items_done"]
        wait_for(
            lambda: api.get(f"/operations/{started['operation_id']}")["progress"]["items_done"] > epoch,
            "the training goes on",
        )
        assert {p.pid for p in descendants(worker.pid)} == children
        api.post(f"/operations/{started['operation_id']}/cancel")
        assert finished(api, started["operation_id"])["status"] == "cancelled"


def test_b6_11_job_killed_is_retried(alone: Parts) -> None:
    alone.backend()
    worker = alone.worker("training", "t1")
    idle = {p.pid for p in descendants(worker.pid)}
    with alone.api() as api:
        api.post("/data/samples")
        started = api.post("/trainings/start", {"strategy": endless_training()})
        advancing(api, started["operation_id"])
        jobs = [p for p in descendants(worker.pid) if p.pid not in idle]
        assert jobs
        for job in jobs:
            job.kill()
        view = wait_for(
            lambda: v if (v := api.get(f"/operations/{started['operation_id']}"))["attempt"] == 2 else None,
            "the second attempt",
        )
        assert any("SIGKILL" in line for line in view["story"]), view["story"]
        in_status(api, started["operation_id"], "running")
        api.post(f"/operations/{started['operation_id']}/cancel")
        assert finished(api, started["operation_id"])["status"] == "cancelled"
