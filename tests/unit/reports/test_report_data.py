from __future__ import annotations

import dataclasses
import json

import polars as pl
import pytest

from ktrdr.errors import InvalidInput
from ktrdr.reports import ReportData, statistics_rows
from ktrdr.reports.table import MISSING, format_statistic
from ktrdr.strategies import with_overrides
from unit.reports.report_pieces import HISTORY, make_data, some_strategy, walk


def training(end: str, symbol: str = "WALK", start: str = "2010-01-01T00:00:00+00:00") -> dict:
    return {"datasets": [{"symbol": symbol, "start": start, "end": end}], "history": HISTORY}


def test_missing_pieces_are_named(data: ReportData) -> None:
    document = {k: v for k, v in data.result.items() if k != "symbol"}
    with pytest.raises(InvalidInput, match=r"result\.symbol, equity\.drawdown missing"):
        dataclasses.replace(data, result=document, equity=data.equity.drop("drawdown"))
    with pytest.raises(InvalidInput, match=r"trades\.net missing"):
        dataclasses.replace(data, trades=data.trades.drop("net"))
    with pytest.raises(InvalidInput, match="no rows"):
        dataclasses.replace(data, equity=data.equity.head(0))


def test_a_report_can_be_made_from_stored_bytes(data: ReportData, tmp_path) -> None:
    data.trades.write_parquet(tmp_path / "trades")
    data.equity.write_parquet(tmp_path / "equity")
    same = ReportData.from_artifacts(
        json.dumps(data.result).encode(),
        (tmp_path / "trades").read_bytes(),
        (tmp_path / "equity").read_bytes(),
        training=training("2014-01-01T00:00:00+00:00"),
    )
    assert same.trades.equals(data.trades)
    assert same.equity.equals(data.equity)
    assert same.name == "example"
    assert same.epochs == HISTORY


def test_history_given_beats_the_training_document(data: ReportData) -> None:
    assert dataclasses.replace(data, training=training("2014-01-01"), history=[]).epochs == []
    assert dataclasses.replace(data, history=None).epochs == ()


def test_out_of_sample_after_training(data: ReportData) -> None:
    note = dataclasses.replace(data, training=training("2014-12-31T00:00:00+00:00")).sample_note()
    assert note.kind == "out-of-sample"
    assert "2010-01-01 to 2014-12-31" in note.text


def test_out_of_sample_before_training(data: ReportData) -> None:
    known = training("2019-12-31T00:00:00+00:00", start="2018-01-01T00:00:00+00:00")
    assert dataclasses.replace(data, training=known).sample_note().kind == "out-of-sample"


def test_the_share_of_known_bars_is_told(data: ReportData) -> None:
    halfway = data.equity["time"][199].isoformat()
    note = dataclasses.replace(data, training=training(halfway)).sample_note()
    assert note.kind == "in-sample"
    assert "50% of the bars" in note.text
    late = training("2019-12-31T00:00:00+00:00", start=data.equity["time"][100].isoformat())
    assert "75% of the bars" in dataclasses.replace(data, training=late).sample_note().text


def test_another_market_in_the_same_years_is_not_called_out_of_sample(data: ReportData) -> None:
    note = dataclasses.replace(
        data, training=training("2019-12-31T00:00:00+00:00", symbol="SP500")
    ).sample_note()
    assert note.kind == "unknown"
    assert "never saw WALK" in note.text


def test_without_a_training_document_the_strategy_says_the_dates(data: ReportData) -> None:
    assert data.sample_note().kind == "out-of-sample"  # the starter ends in 2012
    strategy = with_overrides(some_strategy(), symbols=["WALK"], end_date="2015-06-30")
    assert dataclasses.replace(data, strategy=strategy).sample_note().kind == "in-sample"
    assert dataclasses.replace(data, strategy=None).sample_note().kind == "unknown"


def test_statistics_rows_put_strategy_beside_buy_and_hold(data: ReportData) -> None:
    rows = {row.name: row for row in statistics_rows(data.statistics, data.benchmark)}
    total = data.statistics["total_return"]
    assert rows["total_return"].strategy == f"{100 * total:+,.2f} %"
    assert rows["total_trades"].strategy == str(data.statistics["total_trades"])
    assert rows["sqn"].benchmark == MISSING  # one trade has no spread
    assert len({row.group for row in rows.values()}) == 5
    alone = dataclasses.replace(data, result={k: v for k, v in data.result.items() if k != "benchmark"})
    assert {row.benchmark for row in statistics_rows(alone.statistics, alone.benchmark)} == {MISSING}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("total_return", 0.1234, "+12.34 %"),
        ("max_drawdown", -0.5, "-50.00 %"),
        ("win_rate", 0.5, "50.00 %"),
        ("sharpe_ratio", 1.236, "1.24"),
        ("sharpe_ratio", None, "–"),
        ("final_equity", 123456.789, "123,456.79"),
        ("total_trades", 1234, "1,234"),
        ("unheard_of", 1.0, "1.00"),
    ],
)
def test_formats(name: str, value: float | None, text: str) -> None:
    assert format_statistic(name, value) == text


def test_bars_outside_the_equity_are_ignored() -> None:
    bars = walk(300)
    data = dataclasses.replace(make_data(bars[:200]), bars=bars)
    assert len(data.traded_bars()) == 200
    assert dataclasses.replace(data, bars=None).traded_bars() is None
    assert isinstance(data.trades, pl.DataFrame)
