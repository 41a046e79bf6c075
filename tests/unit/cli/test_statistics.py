"""The printed statistics of a backtest, and what a reader is told beside them."""

from __future__ import annotations

from typing import Any

import pytest

from ktrdr.cli.output import Output
from ktrdr.cli.statistics import print_statistics, print_summary

RESULT: dict[str, Any] = {
    "strategy_name": "small",
    "symbol": "AAA",
    "timeframe": "1d",
    "start": "2001-01-01T00:00:00+00:00",
    "end": "2001-06-30T00:00:00+00:00",
    "statistics": {"total_return": 0.125},
    "benchmark": {"total_return": 0.5},
    "warnings": ["All 181 bars lie in the range that the model was trained on."],
}


def test_warnings_are_told_on_stderr_beside_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_statistics(Output(), RESULT)
    told = capsys.readouterr()
    assert "small on AAA 1d, 2001-01-01 to 2001-06-30" in told.out
    assert "+12.50 %" in told.out
    assert told.err == "Warning: All 181 bars lie in the range that the model was trained on.\n"


def test_without_warnings_stderr_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    print_statistics(Output(), {**RESULT, "warnings": []})
    assert capsys.readouterr().err == ""


def test_the_warnings_of_a_training_are_told_beside_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"val_loss": 0.5, "warnings": ["The validation part has 6 rows."]}
    print_summary(Output(), {"operation_id": "op-1", "result_summary": summary})
    told = capsys.readouterr()
    assert "val_loss" in told.out
    assert "warnings" not in told.out
    assert told.err == "Warning: The validation part has 6 rows.\n"
