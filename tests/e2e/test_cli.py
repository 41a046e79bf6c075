"""The commands against a real fleet: what they print, what they write, and what they say to wrong input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.processes import finished
from support.strategies import edited

BARS = "time,open,high,low,close,volume\n" + "".join(
    f"2020-01-{day:02d},{100 + day},{102 + day},{99 + day},{101 + day},5\n" for day in range(1, 31)
)


def _backtest(fleet: Any) -> str:
    started = fleet.api.post("/backtests/start", {"strategy_name": "sp500_trend", "start_date": "2016-01-01"})
    assert finished(fleet.api, started["operation_id"])["status"] == "completed"
    return str(started["operation_id"])


@pytest.fixture(scope="session")
def backtested(fleet: Any, trained: Any) -> str:
    """The id of a finished backtest of the trained model."""
    assert trained["status"] == "completed"
    return _backtest(fleet)


def test_data_from_import_to_delete(fleet: Any, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(BARS.replace("2020-01-20,", "2020-02-20,", 1).replace("2020-01-21,", "2020-02-21,", 1))
    arguments = ("data", "import", str(path), "--symbol", "ABC", "--timeframe", "1d", "--calendar", "24/7")
    refused = fleet.cli(*arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("ktrdr: prices.csv cannot be imported: out-of-order")
    done = fleet.cli(*arguments, "--policy", "repair")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "Imported ABC 1d: 30 bars, 2020-01-01 to 2020-02-21\n  calendar 24/7: given\n"
    )
    assert "repaired out-of-order" in done.stdout
    assert "warning gap" in done.stdout
    shown = fleet.cli("data", "show", "ABC", "1d", "--json")
    assert json.loads(shown.stdout)["rows"] == 30
    assert "ABC     1d" in fleet.cli("data", "list").stdout
    assert fleet.cli("data", "delete", "ABC", "1d").stdout == "Deleted ABC 1d.\n"
    again = fleet.cli("data", "delete", "ABC", "1d", "--json")
    assert again.returncode == 3
    assert json.loads(again.stderr)["type"] == "urn:ktrdr:problem:not-found"


def test_stamps_without_an_offset_need_a_zone(fleet: Any, tmp_path: Path) -> None:
    path = tmp_path / "local.csv"
    path.write_text(re.sub(r"2020-01-(\d\d),", r"2020-01-02 \1:00:00,", "\n".join(BARS.splitlines()[:21])))
    arguments = ("data", "import", str(path), "--symbol", "LOC", "--timeframe", "1h", "--calendar", "24/7")
    assert "--time-zone" in fleet.cli(*arguments).stderr
    done = fleet.cli(*arguments, "--time-zone", "Europe/Berlin", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["start"] == "2020-01-02T00:00:00Z"
    fleet.cli("data", "delete", "LOC", "1h")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.csv", b"", "is empty"),
        ("binary.csv", bytes(range(256)), "wrong-encoding"),
        ("a.parquet", b"x", "parquet"),
    ],
)
def test_files_that_are_none(fleet: Any, tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = fleet.cli("data", "import", str(path), "--symbol", "BAD", "--timeframe", "1d")
    assert done.returncode == 2
    assert told in done.stderr
    assert name in done.stderr
    assert str(fleet.parts.home) not in done.stderr
    assert fleet.cli("data", "import", str(tmp_path), "--symbol", "BAD", "--timeframe", "1d").returncode == 2
    assert fleet.cli("data", "show", "BAD", "1d").returncode == 3


def test_results_in_every_form(fleet: Any, backtested: str, tmp_path: Path) -> None:
    table = fleet.cli("operations", "results", backtested)
    assert "strategy  buy and hold" in table.stdout
    assert "Sharpe ratio" in table.stdout
    document = json.loads(fleet.cli("operations", "results", backtested, "--json").stdout)
    trades = fleet.cli("operations", "results", backtested, "--trades", "csv").stdout.splitlines()
    assert trades[0].startswith("entry_row,")
    assert len(trades) - 1 == document["result"]["statistics"]["total_trades"]
    as_json = json.loads(fleet.cli("operations", "results", backtested, "--trades", "csv", "--json").stdout)
    assert len(as_json["trades"]) == len(trades) - 1
    target = tmp_path / "equity.csv"
    assert (
        fleet.cli("operations", "results", backtested, "--equity", "csv", "--output", str(target)).returncode
        == 0
    )
    assert target.read_text().startswith("time,equity,benchmark,drawdown,position\n")
    assert [p.name for p in tmp_path.iterdir()] == ["equity.csv"]
    for wrong in (str(tmp_path), str(tmp_path / "absent" / "x.csv")):
        done = fleet.cli("operations", "results", backtested, "--output", wrong)
        assert done.returncode == 2
        assert f"Cannot write '{wrong}'" in done.stderr
    saved = fleet.cli(
        "operations", "results", backtested, "--json", "--equity", "csv", "--output", str(target)
    )
    assert saved.returncode == 0
    assert len(json.loads(target.read_text())["equity"]) > 700


def test_what_an_operation_tells(fleet: Any, backtested: str, trained: Any) -> None:
    shown = fleet.cli("operations", "show", backtested).stdout
    assert re.search(r"^progress +100 %", shown, flags=re.MULTILINE)
    assert "  sharpe_ratio " in shown
    assert "attempt 1: running on" in shown
    metrics = fleet.cli("operations", "metrics", trained["operation_id"]).stdout.splitlines()
    assert metrics[0].split()[0] == "epoch"
    assert (
        fleet.cli("operations", "metrics", backtested, "--cursor", "9999").stdout
        == "No records from 9,999 on.\n"
    )
    watched = fleet.cli("operations", "watch", trained["operation_id"])
    assert watched.stderr == f"{trained['operation_id']} completed\n"
    assert watched.stdout.splitlines()[1].split() == ["model_id", trained["result_summary"]["model_id"]]
    listed = fleet.cli("operations", "list", "--type", "backtesting", "--limit", "1", "--json")
    assert [o["operation_type"] for o in json.loads(listed.stdout)["operations"]] == ["backtesting"]
    assert fleet.cli("operations", "list", "--status", "cancelling").stdout == "No operations match.\n"


def test_what_has_ended_cannot_be_cancelled_retried_or_resumed(fleet: Any, backtested: str) -> None:
    refused = (
        ("operations", "cancel"),
        ("backtest", "cancel"),
        ("operations", "retry"),
        ("operations", "resume"),
    )
    for command in refused:
        done = fleet.cli(*command, backtested)
        assert done.returncode == 2, done.stdout
        assert "completed" in done.stderr
    assert fleet.cli("operations", "results", backtested, "--trades", "csv").returncode == 0


@pytest.mark.usefixtures("trained")
def test_deleted_twice(fleet: Any) -> None:
    operation_id = _backtest(fleet)
    assert fleet.cli("operations", "delete", operation_id).stdout == f"Deleted {operation_id}.\n"
    for command in ("delete", "watch", "results", "cancel"):
        done = fleet.cli("operations", command, operation_id)
        assert done.returncode == 3, done.stdout
        assert "ktrdr operations list" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_models_and_their_signal(fleet: Any, trained: Any) -> None:
    model_id = trained["result_summary"]["model_id"]
    assert model_id in fleet.cli("models", "list").stdout
    assert fleet.cli("models", "list", "--strategy", "nope").stdout.startswith(
        "No model of a strategy 'nope'."
    )
    assert f"model_id                {model_id}" in fleet.cli("models", "show", model_id).stdout
    signal = fleet.cli("models", "signal", model_id, "--symbol", "SP500").stdout
    assert re.match(
        r"SP500 1d at the close of 2018-12-31 21:00 UTC: (BUY|HOLD|SELL) \(confidence 0\.\d+\)", signal
    )
    assert fleet.cli("models", "signal", model_id, "--symbol", "NOPE").returncode == 3
    assert fleet.cli("models", "show", model_id[:-1]).returncode == 3


def test_strategies_as_files_and_by_name(fleet: Any, tmp_path: Path) -> None:
    assert fleet.cli("strategies", "new", "mine", cwd=tmp_path).returncode == 0
    for command in (("models", "train"), ("backtest", "run")):
        done = fleet.cli(*command, "--strategy", "mine", cwd=tmp_path)
        assert done.returncode == 3
        assert "For the file here, write mine.yaml." in done.stderr
    assert "write mine.yaml" in fleet.cli("strategies", "validate", "mine", cwd=tmp_path).stderr
    stored = fleet.parts.home / "strategies"
    stored.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "mine.yaml", stored / "mine.yaml")
    try:
        assert fleet.cli("strategies", "validate", "mine").returncode == 0
        assert "\nmine " in fleet.cli("strategies", "list").stdout
        assert fleet.cli("strategies", "show", "mine").stdout == (tmp_path / "mine.yaml").read_text()
    finally:
        (stored / "mine.yaml").unlink()
    again = fleet.cli("strategies", "new", "mine", cwd=tmp_path)
    assert again.returncode == 2
    assert "left as it is" in again.stderr


def test_faults_name_the_users_file(fleet: Any, tmp_path: Path) -> None:
    path = tmp_path / "misspelt.yaml"
    path.write_text(edited("sp500_trend").replace("indicators:", "indicatrs:", 1))
    for command in (("models", "train"), ("backtest", "run"), ("models", "train", "--json")):
        done = fleet.cli(*command, "--strategy", str(path))
        assert done.returncode == 2
        assert str(path) in done.stderr
        assert "did you mean 'indicators'?" in done.stderr
    for what, told in ((str(tmp_path), "Is a directory"), (str(tmp_path / "x.yaml"), "No such file")):
        done = fleet.cli("models", "train", "--strategy", what)
        assert done.returncode == 2
        assert told in done.stderr
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in fleet.cli("models", "train", "--strategy", str(path)).stderr


def test_a_training_ends_with_the_command_that_tests_it(fleet: Any) -> None:
    done = fleet.cli("models", "train", "--strategy", "sp500_trend")
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.splitlines()[-1] == "Next: ktrdr backtest run --strategy sp500_trend --start 2013-01-01"
    )


@pytest.mark.usefixtures("trained")
def test_absurd_costs_are_remarked(fleet: Any) -> None:
    run = ("backtest", "run", "--strategy", "sp500_trend", "--start", "2018-06-01")
    assert "takes 50 % of each trade's value" in fleet.cli(*run, "--commission", "0.5").stderr
    assert "Note" not in fleet.cli(*run, "--commission", "0.005").stderr
    reversed_dates = fleet.cli(*run, "--end", "2018-01-01")
    assert reversed_dates.returncode == 2
    assert "ends before it starts" in reversed_dates.stderr


def test_workers(fleet: Any) -> None:
    listed = fleet.cli("workers", "list").stdout.splitlines()
    assert listed[0].split()[0] == "worker_id"
    assert {line.split()[0] for line in listed[1:]} == set(fleet.workers)
    assert fleet.cli("workers", "list", "--status", "draining").stdout.startswith("No workers match")


def test_a_report_needs_a_finished_backtest_and_a_place(
    fleet: Any, backtested: str, trained: Any, tmp_path: Path
) -> None:
    assert "needs a completed backtest" in fleet.cli("report", trained["operation_id"]).stderr
    file = tmp_path / "file"
    file.write_text("")
    done = fleet.cli("report", backtested, "--output", str(file))
    assert done.returncode == 2
    assert f"Cannot write to '{file}'" in done.stderr
    folder = tmp_path / "report"
    done = fleet.cli("report", backtested, "--output", str(folder), "--json")
    assert json.loads(done.stdout) == {"html": f"{folder}/report.html", "png": f"{folder}/report.png"}
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "report.png"]


def test_a_failed_operation_again(fleet: Any, tmp_path: Path) -> None:
    overshooting = {"type": "sgd", "learning_rate": 10, "weight_decay": 1.0}
    path = tmp_path / "exploding.yaml"
    path.write_text(
        edited(
            "sp500_trend", name="exploding", training__optimizer=overshooting, training__gradient_clip=None
        )
    )
    first = fleet.cli("models", "train", "--strategy", str(path), "--detach").stdout.strip()
    assert finished(fleet.api, first)["status"] == "failed"
    again = fleet.cli("operations", "retry", first)
    assert again.returncode == 1
    assert "Training diverged" in again.stderr
    third = fleet.cli("operations", "retry", first, "--detach").stdout.strip()
    assert finished(fleet.api, third)["parent_operation_id"] == first
    listed = fleet.cli("operations", "list", "--status", "failed").stdout
    assert "Training diverged" in listed
    assert all(name in listed for name in (first, third))


def test_an_operation_that_runs_longer_than_it_may(fleet: Any) -> None:
    limit = ("--time-limit", "0.02")
    done = fleet.cli("models", "train", "--strategy", "sp500_trend", *limit)
    assert done.returncode == 1
    assert "longer than its time limit of 0.02 s" in done.stderr
    done = fleet.cli("backtest", "run", "--strategy", "sp500_trend", "--time-limit", "0")
    assert (done.returncode, "'0' is not a number above 0" in done.stderr) == (2, True)
