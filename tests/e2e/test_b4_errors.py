"""Scenarios B4: errors (docs/testing/scenarios/B4-errors.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ktrdr.errors import InvalidInput, NotFound
from support.processes import finished, in_status
from support.strategies import edited, endless_training


def _operations(fleet: Any) -> int:
    return int(fleet.api.get("/operations")["total"])


def test_b4_1_invalid_strategy(fleet: Any, tmp_path: Path) -> None:
    before = _operations(fleet)
    text = edited("sp500_trend").replace("\nindicators:", "\nindicatros:")
    with pytest.raises(InvalidInput) as caught:
        fleet.api.post("/trainings/start", {"strategy": text})
    told = str(caught.value)
    assert "missing required field 'indicators'" in told
    assert "did you mean 'indicators'?" in told
    assert any(e.line is not None and "indicatros" in str(e) for e in caught.value.errors)
    broken = tmp_path / "broken.yaml"
    broken.write_text(text)
    done = fleet.cli("models", "train", "--strategy", str(broken))
    assert done.returncode == 2
    assert "indicatros" in done.stderr
    assert _operations(fleet) == before


def test_b4_2_missing_data(fleet: Any) -> None:
    before = _operations(fleet)
    done = fleet.cli("models", "train", "--strategy", "sp500_trend", "--symbol", "NOSUCH")
    assert done.returncode == 3
    assert "NOSUCH" in done.stderr
    assert "ktrdr data import" in done.stderr
    assert _operations(fleet) == before


def test_b4_3_cancel_mid_run(fleet: Any) -> None:
    started = fleet.api.post("/trainings/start", {"strategy": endless_training()})
    in_status(fleet.api, started["operation_id"], "running")
    done = fleet.cli("operations", "cancel", started["operation_id"])
    assert done.returncode == 0, done.stderr
    assert finished(fleet.api, started["operation_id"])["status"] == "cancelled"
    again = fleet.api.post(f"/operations/{started['operation_id']}/retry")
    assert again["operation_id"] != started["operation_id"]
    retried = in_status(fleet.api, again["operation_id"], "running")
    assert retried["parent_operation_id"] == started["operation_id"]


def test_b4_4_missing_model(fleet: Any) -> None:
    before = _operations(fleet)
    with pytest.raises(NotFound, match=r"ktrdr models train"):
        fleet.api.post("/backtests/start", {"strategy": edited("rsi_mean_reversion", name="never_trained")})
    done = fleet.cli("backtest", "run", "--strategy", "rsi_mean_reversion", "--model", "nosuch")
    assert done.returncode == 3
    assert "nosuch" in done.stderr
    assert _operations(fleet) == before


def test_b4_5_too_few_bars(fleet: Any, tmp_path: Path) -> None:
    before = _operations(fleet)
    path = tmp_path / "short.csv"
    days = pl.date_range(pl.date(2020, 1, 6), pl.date(2020, 1, 24), eager=True)
    days = days.filter(days.dt.weekday() <= 5)
    prices = pl.Series([100.0 + i % 3 for i in range(len(days))])
    frame = pl.DataFrame(
        {"time": days, "open": prices, "high": prices + 1, "low": prices - 1, "close": prices}
    )
    frame.write_csv(path)
    done = fleet.cli("data", "import", str(path), "--symbol", "SHORT", "--timeframe", "1d")
    assert done.returncode == 0, done.stderr
    text = edited("sp500_trend", training_data__start_date=None, training_data__end_date=None)
    strategy = tmp_path / "short.yaml"
    strategy.write_text(text)
    done = fleet.cli("models", "train", "--strategy", str(strategy), "--symbol", "SHORT")
    assert done.returncode == 2, done.stderr
    assert str(len(days)) in done.stderr
    assert _operations(fleet) == before
    assert fleet.cli("data", "delete", "SHORT", "1d").returncode == 0
