"""Scenarios B5: training (docs/testing/scenarios/B5-training.md)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ktrdr.errors import Unavailable
from support.processes import advancing, descendants, finished, in_status
from support.strategies import endless_training


def test_b5_1_training_start_poll_results(fleet: Any, trained: Any) -> None:
    operation_id = trained["operation_id"]
    answer = fleet.api.get(f"/operations/{operation_id}/results")
    result = answer["result"]
    assert result["kind"] == "training"
    model_id = trained["result_summary"]["model_id"]
    listed = {m["model_id"]: m for m in fleet.api.get("/models")["items"]}
    assert listed[model_id]["strategy_name"] == "sp500_trend"
    scores = result["metrics"]["test"]
    assert set(scores["recall"]) == set(scores["balance"]) == {"BUY", "HOLD", "SELL"}
    assert sum(map(sum, scores["confusion"])) == scores["rows"] > 0
    assert 0 < scores["majority_accuracy"] < 1
    assert result["metrics"]["rows"]["bars"] > scores["rows"]
    shown = fleet.cli("models", "show", model_id)
    assert shown.returncode == 0, shown.stderr
    assert model_id in shown.stdout
    signal = fleet.api.get(f"/models/{model_id}/signal", symbol="SP500")
    assert signal["action"] in ("BUY", "SELL", "HOLD")
    assert 0 <= signal["confidence"] <= 1
    assert all(0 <= v <= 1 for v in signal["memberships"].values())
    assert str(signal["time"]).startswith("2018-12-31")


def test_b5_2_training_progress_by_epoch(fleet: Any, trained: Any) -> None:
    operation_id = trained["operation_id"]
    assert {"epoch", "total_epochs", "train_loss", "val_loss"} <= set(trained["progress"]["context"])
    page = fleet.api.get(f"/operations/{operation_id}/metrics", cursor=0)
    epochs = [record["epoch"] for record in page["epochs"]]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 2
    rest = fleet.api.get(f"/operations/{operation_id}/metrics", cursor=page["next_cursor"])
    assert rest["epochs"] == []
    assert rest["next_cursor"] == page["next_cursor"]


def test_b5_3_training_cancel(fleet: Any) -> None:
    models = fleet.api.get("/models")["items"]
    before = {p.pid for p in descendants(fleet.workers["train-1"].pid)}
    started = fleet.api.post("/trainings/start", {"strategy": endless_training()})
    advancing(fleet.api, started["operation_id"])
    children = [p for p in descendants(fleet.workers["train-1"].pid) if p.pid not in before]
    fleet.api.post(f"/operations/{started['operation_id']}/cancel")
    assert finished(fleet.api, started["operation_id"])["status"] == "cancelled"
    _, alive = psutil.wait_procs(children, timeout=30)
    assert children
    assert not alive
    assert fleet.api.get("/models")["items"] == models
    fleet.parts.wait_worker("train-1", "available")


def test_b5_4_training_busy(fleet: Any) -> None:
    first = fleet.api.post("/trainings/start", {"strategy": endless_training()})
    in_status(fleet.api, first["operation_id"], "running")
    with pytest.raises(Unavailable):
        fleet.api.post("/trainings/start", {"strategy": endless_training(), "when_busy": "reject"})
    queued = fleet.api.post("/trainings/start", {"strategy": endless_training()})
    view = fleet.api.get(f"/operations/{queued['operation_id']}")
    assert (view["status"], view["queue_position"]) == ("pending", 1)
    fleet.api.post(f"/operations/{first['operation_id']}/cancel")
    finished(fleet.api, first["operation_id"])
    freed = time.monotonic()
    in_status(fleet.api, queued["operation_id"], "running")
    assert time.monotonic() - freed < 30


def test_b5_5_training_bad_data(fleet: Any, tmp_path: Path) -> None:
    before = fleet.api.get("/data")["total"]
    corrupt = tmp_path / "corrupt.csv"
    corrupt.write_text(
        "time,open,high,low,close,volume\n"
        "2020-01-06,100,101,99,100,5\n"
        "2020-01-07,100,98,99,100,5\n"
        "2020-01-08,100,abc,99,100,5\n"
    )
    done = fleet.cli("data", "import", str(corrupt), "--symbol", "BAD", "--timeframe", "1d")
    assert done.returncode == 2
    for told in ("corrupt.csv", "row", "high"):
        assert told in done.stderr, done.stderr
    assert fleet.api.get("/data")["total"] == before
