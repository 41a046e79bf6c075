"""Scenarios B2: backtests through the API (docs/testing/scenarios/B2-api.md)."""

from __future__ import annotations

import io
from typing import Any

import httpx
import polars as pl
import pytest

from ktrdr.errors import NotFound
from support.processes import finished, in_status

BODY = {"strategy_name": "sp500_trend", "start_date": "2014-01-01"}


@pytest.mark.usefixtures("trained")
def test_b2_1_api_start_poll_results(fleet: Any) -> None:
    with httpx.Client(base_url=f"{fleet.parts.url}/api/v1", timeout=60, trust_env=False) as http:
        answer = http.post("/backtests/start", json=BODY)
        assert answer.status_code == 202
        started = answer.json()
        operation_id = started["operation_id"]
        assert started["status"] == "started"
        assert answer.headers["location"].endswith(f"/operations/{operation_id}")
    operation = finished(fleet.api, operation_id)
    assert operation["status"] == "completed"
    assert operation["progress"]["percentage"] == 100
    answer = fleet.api.get(f"/operations/{operation_id}/results")
    summary = answer["result_summary"]
    wanted = {"total_return", "sharpe_ratio", "max_drawdown", "win_rate", "profit_factor", "total_trades"}
    assert wanted <= set(summary)
    csv = fleet.api.request(
        "GET", f"/operations/{operation_id}/results/trades", params={"format": "csv"}
    ).content
    trades = pl.read_csv(io.BytesIO(csv))
    assert len(trades) == summary["total_trades"] >= 20
    equity = pl.read_csv(
        io.BytesIO(
            fleet.api.request(
                "GET", f"/operations/{operation_id}/results/equity", params={"format": "csv"}
            ).content
        )
    )
    capital = answer["result"]["initial_capital"]
    assert capital + trades["net"].sum() == pytest.approx(equity["equity"][-1], rel=1e-12)


def test_b2_2_api_cancel(fleet: Any, slow_backtest: dict[str, Any]) -> None:
    started = fleet.api.post("/backtests/start", slow_backtest)
    running = in_status(fleet.api, started["operation_id"], "running")
    for _ in range(2):  # asked twice, it is still one cancel
        fleet.api.request("DELETE", f"/operations/{started['operation_id']}/cancel")
    assert finished(fleet.api, started["operation_id"])["status"] == "cancelled"
    fleet.parts.wait_worker(running["worker_id"], "available")


@pytest.mark.usefixtures("trained")
def test_b2_3_api_several_at_once(fleet: Any) -> None:
    ids = [fleet.api.post("/backtests/start", BODY)["operation_id"] for _ in range(3)]
    done = [finished(fleet.api, operation_id) for operation_id in ids]
    assert [o["status"] for o in done] == ["completed"] * 3
    assert len({o["worker_id"] for o in done}) == 3
    assert len({fleet.api.get(f"/operations/{i}/results")["result"]["digest"] for i in ids}) == 1


@pytest.mark.usefixtures("trained")
def test_b2_4_api_missing_data(fleet: Any) -> None:
    before = fleet.api.get("/operations")["total"]
    with pytest.raises(NotFound, match=r"NOSUCH.*\n?.*import"):
        fleet.api.post("/backtests/start", BODY | {"symbol": "NOSUCH"})
    done = fleet.cli("backtest", "run", "--strategy", "sp500_trend", "--symbol", "NOSUCH")
    assert done.returncode == 3
    assert "NOSUCH" in done.stderr
    assert fleet.api.get("/operations")["total"] == before
