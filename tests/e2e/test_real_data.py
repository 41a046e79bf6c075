"""Real input beyond the bundle: import, train on the years to 2014, backtest 2015-2018 through the fleet."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.processes import finished
from support.strategies import edited

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real market files are not beside this checkout"),
]
CASES = {
    "SPY": ("SPY_1d.csv.gz", "1d", "sp500_trend"),
    "EURUSD_OANDA": ("EURUSD_1h_bidask.csv.gz", "1h", "neuro_mean_reversion"),
}


@pytest.mark.parametrize("symbol", CASES)
def test_train_to_2014_and_backtest_to_2018(fleet: Any, symbol: str) -> None:
    file, timeframe, strategy = CASES[symbol]
    done = fleet.cli("data", "import", str(DATA / file), "--symbol", symbol, "--timeframe", timeframe)
    assert done.returncode == 0, done.stderr
    text = edited(
        strategy,
        name=f"real_{symbol.lower()}",
        training_data__symbols=[symbol],
        training_data__start_date=None,
        training_data__end_date="2014-12-31",
    )
    trained = fleet.api.post("/trainings/start", {"strategy": text})
    assert finished(fleet.api, trained["operation_id"])["status"] == "completed"
    body = {"strategy": text, "start_date": "2015-01-01", "end_date": "2018-12-31"}
    started = fleet.api.post("/backtests/start", body)
    operation = finished(fleet.api, started["operation_id"])
    assert operation["status"] == "completed", operation["error"]
    _hold_the_books(fleet.api, started["operation_id"])
    _hold_the_prefix_law(fleet.api, started["operation_id"], body | {"end_date": "2016-12-30"})


def _frame(api: Any, operation_id: str, which: str) -> pl.DataFrame:
    answer = api.request("GET", f"/operations/{operation_id}/results/{which}", params={"format": "csv"})
    return pl.read_csv(io.BytesIO(answer.content), try_parse_dates=True)


def _hold_the_books(api: Any, operation_id: str) -> None:
    """Initial capital plus the trades' net results is the final equity; statistics agree with the curve."""
    result = api.get(f"/operations/{operation_id}/results")["result"]
    trades, equity = _frame(api, operation_id, "trades"), _frame(api, operation_id, "equity")
    assert len(trades) == result["statistics"]["total_trades"] > 0
    final = equity["equity"][-1]
    assert result["initial_capital"] + trades["net"].sum() == pytest.approx(final, rel=1e-9)
    assert final / result["initial_capital"] - 1 == pytest.approx(
        result["statistics"]["total_return"], rel=1e-9
    )
    assert (trades["exit_time"] >= trades["entry_time"]).all()
    assert str(equity["time"][0]) >= "2015-01-01"


def _hold_the_prefix_law(api: Any, operation_id: str, shorter: dict[str, Any]) -> None:
    """The same backtest ended earlier has the same equity curve up to its end, but for the closing of the position."""
    started = api.post("/backtests/start", shorter)
    assert finished(api, started["operation_id"])["status"] == "completed"
    whole, part = _frame(api, operation_id, "equity"), _frame(api, started["operation_id"], "equity")
    rows = len(part) - 1  # on its last bar the shorter run closes what the longer one keeps
    assert rows > 400
    assert whole["time"][:rows].equals(part["time"][:rows])
    assert whole["equity"][:rows].equals(part["equity"][:rows])
