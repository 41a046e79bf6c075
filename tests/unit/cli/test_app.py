"""The process edge: every error is one message, or one JSON object, and a code of the table."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ktrdr.cli.app import run
from ktrdr.strategies import StrategyLibrary, example_root
from support.ports import refusing_url
from support.scripted_backend import Said, scripted


def command(*arguments: str, **options: Any) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "ktrdr", *arguments], capture_output=True, text=True, check=False, timeout=60, **options
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dat"], "did you mean 'data'?"),
        (["data", "lst"], "list"),
        (["data", "list", "--jsn"], "--json"),
        (["operations", "list", "--status", "compleet"], "'completed'"),
        (["data", "show", "../..", "1d"], "'../..'"),
        (["backtest", "run", "--strategy", "x", "--capital", "nan"], "--capital"),
        (["backtest", "run", "--strategy", "x", "--commission", "5"], "0.001 for 0.1 %"),
        (["backtest", "run"], "--strategy"),
        (["models", "train", "--strategy", "x", "--priority", "5000"], "-1000<=x<=1000"),
        (["workers", "list", "--api-url", "localhost:1"], "http://localhost:1"),
        (["data", "import", "/nowhere.csv", "--symbol", "A", "--timeframe", "1d"], "'/nowhere.csv'"),
        (["operations", "results", "op_1", "--trades", "csv", "--equity", "csv"], "exclude each other"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_use(
    arguments: list[str], told: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, *["--json"] * as_json]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in (json.loads(captured.err)["detail"] if as_json else captured.err)


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["data"], ["models"]):
        assert run(arguments) == 2
        assert "Commands:" in "".join(capsys.readouterr())


def test_a_fault_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [{"pointer": "/seed", "message": "too small"}, {"pointer": "/epochs", "message": "too many"}]
    problem = {
        "type": "urn:ktrdr:problem:invalid-input",
        "detail": "2 faults; the first: /seed: too small",
        "errors": faults,
    }
    with scripted(lambda _, __: Said(problem, 422)) as backend:
        assert run(["models", "train", "--strategy", "x", "--api-url", backend.url]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "ktrdr: 2 faults; the first: /seed: too small",
        "  /epochs: too many",
    ]


def test_a_defect_says_how_to_find_it(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(lambda _, __: Said({"surprise": 1})) as other:
        assert run(["workers", "list", "--api-url", other.url]) == 1
        assert "KTRDR_LOG_LEVEL=DEBUG" in capsys.readouterr().err
        done = command(
            "workers", "list", "--api-url", other.url, env=os.environ | {"KTRDR_LOG_LEVEL": "debug"}
        )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_unreachable_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "list", "--json", "--api-url", refusing_url()]) == 5
    problem = json.loads(capsys.readouterr().err)
    assert problem["type"] == "urn:ktrdr:problem:server-unreachable"
    assert "ktrdr up" in problem["detail"]


def _to_a_reader_that_is_gone() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _to_a_full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _outcome(arguments: list[str], out: int, err: int, *, unbuffered: bool) -> tuple[int, str]:
    """The exit code, and what stderr got, of a command whose outputs go to these descriptors; it closes them."""
    env = os.environ | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ktrdr", *arguments], stdout=out, stderr=err, text=True, env=env,
            check=False, timeout=60,
        )  # fmt: skip
    finally:
        for descriptor in {out, err} - {subprocess.PIPE, subprocess.DEVNULL}:
            os.close(descriptor)
    return done.returncode, done.stderr or ""


_A_PAGE, _A_LINE = ["strategies", "schema"], ["--version"]  # more than a buffer holds, and less
_MISTAKES = [["nonsense"], ["nonsense", "--json"], ["strategies", "validate", "absent.yaml"]]
_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
_unbuffered = pytest.mark.parametrize("unbuffered", [False, True])


@_full
@_unbuffered
@pytest.mark.parametrize("arguments", [_A_PAGE, _A_LINE])
def test_an_output_that_takes_nothing_is_a_failure(arguments: list[str], unbuffered: bool) -> None:
    code, told = _outcome(arguments, _to_a_full_disk(), subprocess.PIPE, unbuffered=unbuffered)
    assert (code, told) == (1, "ktrdr: The system refused: No space left on device.\n")
    both = _to_a_full_disk()
    assert _outcome(arguments, both, both, unbuffered=unbuffered) == (1, "")


@_unbuffered
@pytest.mark.parametrize("arguments", [_A_PAGE, _A_LINE])
def test_a_reader_that_goes_away_is_no_defect(arguments: list[str], unbuffered: bool) -> None:
    gone = _to_a_reader_that_is_gone()
    code, told = _outcome(arguments, gone, subprocess.PIPE, unbuffered=unbuffered)
    assert (code, told) == (128 + signal.SIGPIPE, "")
    gone = _to_a_reader_that_is_gone()
    assert _outcome(arguments, gone, gone, unbuffered=unbuffered) == (128 + signal.SIGPIPE, "")


@_unbuffered
@pytest.mark.parametrize("nowhere", [_to_a_reader_that_is_gone, pytest.param(_to_a_full_disk, marks=_full)])
@pytest.mark.parametrize("arguments", _MISTAKES)
def test_an_error_that_nobody_reads_keeps_its_exit_code(
    arguments: list[str], nowhere: Callable[[], int], unbuffered: bool
) -> None:
    assert _outcome(arguments, subprocess.DEVNULL, nowhere(), unbuffered=unbuffered) == (2, "")
    both = nowhere()
    assert _outcome(arguments, both, both, unbuffered=unbuffered) == (2, "")


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_while_waiting_for_an_answer(as_json: bool) -> None:
    told: list[int] = []

    def answer(_method: str, _path: str) -> Said:
        os.kill(told[0], signal.SIGINT)
        return Said({})

    with scripted(answer) as backend:
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys, time; print(flush=True); sys.stdin.readline(); "
             "from ktrdr.cli import main; main()", "data", "list", "--api-url", backend.url, *["--json"] * as_json],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        told.append(process.pid)
        _, said = process.communicate("go\n", timeout=60)
    assert process.returncode == 130
    assert "Interrupted." in (json.loads(said)["detail"] if as_json else said)
    assert "Traceback" not in said


def test_a_terminal_without_utf_8_gets_what_it_lacks_spelt(tmp_path: Path) -> None:
    """It was an internal error: 'latin-1' codec can't encode characters."""
    name = "\u0441\u0442\u0440\u00e9.yaml"
    (tmp_path / name).write_text(StrategyLibrary([example_root()]).text("sp500_trend"), encoding="utf-8")
    told = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(told, encoding="latin-1")):
        assert run(["strategies", "validate", str(tmp_path / name)]) == 0
    assert b"\\u0441\\u0442\\u0440\xe9.yaml: valid. Strategy 'sp500_trend'.\n" in told.getvalue()
