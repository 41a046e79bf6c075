"""One test per row of docs/reference/exit-codes.md, each with the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.processes import Parts, environment, finished, in_status, ktrdr
from support.strategies import edited, endless_training


@pytest.mark.usefixtures("trained")
def test_0_done(fleet: Any) -> None:
    done = fleet.cli("backtest", "run", "--strategy", "sp500_trend", "--start", "2014-01-01")
    assert done.returncode == 0, done.stderr
    assert "Sharpe" in done.stdout
    assert "ktrdr report op_" in done.stdout
    assert "\x1b[" not in done.stdout + done.stderr


@pytest.mark.usefixtures("trained")
def test_0_done_as_json(fleet: Any) -> None:
    done = fleet.cli("backtest", "run", "--strategy", "sp500_trend", "--start", "2014-01-01", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "completed"
    assert done.stderr == ""


def test_1_failed(fleet: Any, tmp_path: Path) -> None:
    """Steps that make the weights overflow end in a failed operation, not in a model of NaN."""
    overshooting = {"type": "sgd", "learning_rate": 10, "weight_decay": 1.0}
    text = edited(
        "sp500_trend", name="exploding", training__optimizer=overshooting, training__gradient_clip=None
    )
    path = tmp_path / "exploding.yaml"
    path.write_text(text)
    done = fleet.cli("models", "train", "--strategy", str(path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Training diverged" in done.stderr


def test_1_cancelled(fleet: Any, tmp_path: Path) -> None:
    path = tmp_path / "endless.yaml"
    path.write_text(endless_training())
    started = fleet.cli("models", "train", "--strategy", str(path), "--detach")
    operation_id = started.stdout.strip()
    in_status(fleet.api, operation_id, "running")
    fleet.api.post(f"/operations/{operation_id}/cancel")
    done = fleet.cli("operations", "watch", operation_id)
    assert done.returncode == 1
    assert "was cancelled" in done.stderr


def test_2_invalid(fleet: Any) -> None:
    done = fleet.cli("models", "train", "--strategy", "sp500_trend", "--timeframe", "7h")
    assert done.returncode == 2
    assert "7h" in done.stderr
    assert fleet.cli("operations", "list", "--status", "nonsense").returncode == 2


def test_2_invalid_as_json(fleet: Any) -> None:
    done = fleet.cli("models", "train", "--strategy", "sp500_trend", "--timeframe", "7h", "--json")
    assert done.returncode == 2
    assert "7h" in json.loads(done.stderr)["detail"]


def test_3_not_found(fleet: Any) -> None:
    done = fleet.cli("models", "train", "--strategy", "sp500_tren")
    assert done.returncode == 3
    assert "did you mean 'sp500_trend'?" in done.stderr
    assert fleet.cli("operations", "show", "op_nosuch").returncode == 3


def test_4_not_authorised(alone: Parts) -> None:
    alone.backend(KTRDR_API_TOKEN="a-token-for-this-test-0123456789")
    done = ktrdr("operations", "list", env=alone.environment())
    assert done.returncode == 4, done.stderr
    assert "KTRDR_API_TOKEN" in done.stderr
    right = alone.environment(KTRDR_API_TOKEN="a-token-for-this-test-0123456789")
    assert ktrdr("operations", "list", env=right).returncode == 0


def test_5_unreachable(tmp_path: Path) -> None:
    done = ktrdr("workers", "list", env=environment(tmp_path, KTRDR_API_URL="http://127.0.0.1:9"))
    assert done.returncode == 5
    assert "ktrdr up" in done.stderr


@pytest.mark.parametrize("cancels", [False, True])
def test_130_interrupted(fleet: Any, tmp_path: Path, cancels: bool) -> None:
    path = tmp_path / "endless.yaml"
    path.write_text(endless_training())
    command = [sys.executable, "-m", "ktrdr", "models", "train", "--strategy", str(path)]
    following = subprocess.Popen(
        command + ["--cancel-on-interrupt"] * cancels,
        env=fleet.parts.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert following.stderr is not None
    while " running " not in (
        line := following.stderr.readline()
    ):  # it says so itself: it follows the operation
        assert line, following.communicate()
    operation_id = line.split()[0]
    os.kill(following.pid, signal.SIGINT)
    _, told = following.communicate(timeout=60)
    assert following.returncode == 130
    assert operation_id in told
    if cancels:
        assert finished(fleet.api, operation_id)["status"] == "cancelled"
    else:
        assert f"ktrdr operations cancel {operation_id}" in told
        assert fleet.api.get(f"/operations/{operation_id}")["status"] == "running"
