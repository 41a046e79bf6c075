"""Logs of real backends, workers and jobs: who a line is about, no secret in any, and what a death leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ktrdr.cli.client import Api
from support.processes import Part, Parts, environment, finished, ktrdr, parts, wait_for

pytestmark = pytest.mark.integration

TOKEN = "open-sesame-1234"
WORKER = """
import sys
from ktrdr.workers.kinds import run_worker
from ktrdr.workers.training_worker import TrainingWorker

TrainingWorker.preload = ()
run_worker("training", port=0, host="127.0.0.1", job="ktrdr.testing.chatty_jobs:perform")
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as started:
        yield started


def _worker(fleet: Parts, name: str, **extra: str) -> Part:
    settings = {"WORKER_ID": name, "KTRDR_API_URL": fleet.url, **extra}
    return fleet.start(name, [], settings, program=("-c", WORKER))


def _talking(api: Api, name: str) -> str:
    """A training at that worker whose log has begun to come."""
    wait_for(lambda: [w for w in api.get("/workers")["workers"] if w["worker_id"] == name], "the worker")
    if api.get("/data")["total"] == 0:
        api.post("/data/samples")
    operation_id = str(api.post("/trainings/start", {"strategy_name": "sp500_trend"})["operation_id"])
    wait_for(lambda: "line 5 " in _log(api, operation_id), "lines of the job")
    return operation_id


def _log(api: Api, operation_id: str, **params: Any) -> str:
    return api.request("GET", f"/operations/{operation_id}/logs", params=params).content.decode()


def test_json_lines_name_operation_and_worker_and_hold_no_token(alone: Parts) -> None:
    extra = {"KTRDR_LOG_FORMAT": "json", "KTRDR_API_TOKEN": TOKEN, "KTRDR_LOG_LEVEL": "DEBUG"}
    backend = alone.backend(**extra)
    worker = _worker(alone, "t1", **extra)
    with alone.api(TOKEN) as api:
        operation_id = _talking(api, "t1")
        api.post(f"/operations/{operation_id}/cancel")
        assert finished(api, operation_id)["status"] == "cancelled"
        job = _log(api, operation_id)
    assert worker.stop() == 0
    assert backend.stop() == 0
    assert TOKEN not in backend.text() + worker.text() + job
    assert f"printed: {'*' * len(TOKEN)}" in job
    logged = [json.loads(line) for line in job.splitlines() if line.startswith("{")]
    assert {(entry["operation_id"], entry["worker_id"]) for entry in logged} == {(operation_id, "t1")}
    assert "logged: ***" in {entry["message"] for entry in logged}
    told = [json.loads(line) for line in worker.text().splitlines()]
    assert {entry.get("worker_id") for entry in told} == {"t1"}
    concerned = [entry for entry in told if operation_id in entry["message"]]
    assert concerned
    assert {entry["operation_id"] for entry in concerned} == {operation_id}
    of_backend = [json.loads(line) for line in backend.text().splitlines()]
    assert {e.get("worker_id") for e in of_backend if "t1" in e["message"]} == {"t1"}


def test_the_log_outlives_worker_backend_and_operation(alone: Parts) -> None:
    backend = alone.backend(KTRDR_MAX_FAILURES="1")
    worker = _worker(alone, "t1")
    with alone.api() as api:
        operation_id = _talking(api, "t1")
        seen = len(_log(api, operation_id))
        worker.kill()
        done = finished(api, operation_id)
        assert done["status"] == "failed"
        assert "log" not in done["artifacts"]
        log = _log(api, operation_id)
        assert len(log) >= seen
        assert log.index("line 1 é") < log.index("line 5 é")
        assert log.count("line 1 é") == 1
        backend.stop()
        alone.backend()
        assert _log(api, operation_id) == log
        assert _log(api, operation_id, tail=3) == "".join(log.splitlines(keepends=True)[-3:])


def test_the_command_line_prints_tails_and_follows(alone: Parts) -> None:
    alone.backend()
    _worker(alone, "t1")
    env = alone.environment()
    with alone.api() as api:
        operation_id = _talking(api, "t1")
        following = subprocess.Popen(
            [sys.executable, "-m", "ktrdr", "operations", "logs", operation_id, "--tail", "1", "--follow"],
            env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        assert following.stdout is not None
        followed = [following.stdout.readline() for _ in range(40)]
        api.post(f"/operations/{operation_id}/cancel")
        followed += following.stdout.read().splitlines(keepends=True)
        following.stdout.close()
        assert following.wait(60) == 0
        assert finished(api, operation_id)["status"] == "cancelled"
        whole = _log(api, operation_id)
    assert "attempt 1: stopped before its end" in followed[-1]
    assert "".join(followed) == "".join(
        whole.splitlines(keepends=True)[-len(followed) :]
    )  # no line lost or twice
    assert ktrdr("operations", "logs", operation_id, env=env).stdout == whole
    tail = ktrdr("operations", "logs", operation_id, "--tail", "2", env=env).stdout
    assert tail == "".join(whole.splitlines(keepends=True)[-2:])
    as_json = ktrdr("operations", "logs", operation_id, "--json", env=env).stdout
    assert json.loads(as_json) == {"operation_id": operation_id, "log": whole}
    assert ktrdr("operations", "logs", operation_id, "--json", "--follow", env=env).returncode == 2
    missing = ktrdr("operations", "logs", "nobody", env=env)
    assert (missing.returncode, missing.stdout) == (3, "")


def test_a_wrong_format_is_refused_by_name(tmp_path: Path) -> None:
    done = ktrdr("backend", "start", "--port", "0", env=environment(tmp_path, KTRDR_LOG_FORMAT="xml"))
    assert done.returncode == 2
    assert "KTRDR_LOG_FORMAT='xml' is not accepted. Choose one of: text, json." in done.stderr
