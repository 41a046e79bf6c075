"""A real job whose worker or process is killed, or that is given back, goes on elsewhere and ends the same."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from ktrdr.cli.client import Api
from support.processes import Part, Parts, advancing, descendants, finished, ktrdr, parts, wait_for
from support.strategies import edited

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("resume")]  # what its tests share is made once
EPOCHS = 30
OFTEN = {"KTRDR_CHECKPOINT_S": "0", "KTRDR_CHECKPOINT_EPOCHS": "1", "KTRDR_CHECKPOINT_BARS": "500"}
GRACE = {
    "KTRDR_CANCEL_GRACE_S": "60"
}  # whoever is told to stop gets to where it can be left, however slow it is
SLOW = """
import sys
from ktrdr.workers.kinds import run_worker
run_worker(sys.argv[1], host="127.0.0.1", port=0, job="ktrdr.testing.slow_jobs:perform")
"""


def strategy() -> str:
    return edited(
        "sp500_trend",
        training__epochs=EPOCHS,
        training__early_stopping=None,
        training__batch_size=64,
        model__architecture__dropout=0.1,
    )


class Trainings:
    """A backend with data and one worker at a time, each with a home of its own."""

    def __init__(self, running: Parts, api: Api) -> None:
        self.parts, self.api = running, api
        self._worker: Part | None = None
        self._count = 0

    @property
    def name(self) -> str:
        """Of the worker that was started last."""
        return f"w{self._count}"

    def worker(self) -> Part:
        """The worker that runs, or another one."""
        if self._worker is None or self._worker.process.poll() is not None:
            self._count += 1
            self._worker = self.slow_worker("training", self.name)
        return self._worker

    def slow_worker(self, kind: str, name: str) -> Part:
        """A worker that pauses at each place where its job can be left."""
        home = str(self.parts.root / name)
        settings = {"WORKER_ID": name, "KTRDR_HOME": home, "KTRDR_API_URL": self.parts.url} | OFTEN | GRACE
        part = self.parts.start(name, ["-c", SLOW, kind], settings, program=())
        self.parts.wait_worker(name, "available", part)
        return part

    def start(self) -> str:
        body = {"strategy": strategy(), "start_date": "2008-01-01"}
        return str(self.api.post("/trainings/start", body)["operation_id"])

    def checkpointed(self, name: str, times: int = 1) -> list[str]:
        """Wait until the backend has had so many checkpoints; their digests."""
        seen: list[str] = []

        def enough() -> bool:
            view = self.api.get(f"/operations/{name}")
            assert view["status"] in ("pending", "assigned", "running"), view
            if (digest := view["checkpoint_digest"]) is not None and digest not in seen:
                seen.append(digest)
            return len(seen) >= times

        wait_for(enough, f"{name} has {times} checkpoints")
        return seen

    def given_up(self, name: str) -> None:
        """Wait until the backend has noticed that a killed worker is gone: what that one said last, it has taken in."""

        def silent() -> bool:
            listed = {w["worker_id"]: w["status"] for w in self.api.get("/workers")["workers"]}
            return listed.get(name) not in ("available", "busy")

        wait_for(silent, f"{name} is missed")

    def artifacts(self) -> set[str]:
        return {file.name for file in (self.parts.home / "artifacts").glob("??/*")}

    def log(self, name: str) -> str:
        return self.api.request("GET", f"/operations/{name}/logs").text


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with parts(tmp_path_factory.mktemp("resume"), measured=False) as running:
        running.backend(**GRACE)
        with running.api() as api:
            api.post("/data/samples")
            yield Trainings(running, api)


@pytest.fixture(scope="module")
def undisturbed(trainings: Trainings) -> str:
    """The model of a training that nobody disturbs."""
    trainings.worker()
    view = finished(trainings.api, trainings.start())
    assert (view["status"], view["attempt"]) == ("completed", 1), view
    assert view["checkpoint_digest"] is None
    return str(view["result_summary"]["model_digest"])


def ended_as(trainings: Trainings, name: str, model: str) -> Any:
    """The ended operation: completed by its second attempt, which ran only what was left, with this model."""
    view = finished(trainings.api, name)
    assert (view["status"], view["attempt"]) == ("completed", 2), view
    log = trainings.log(name)
    ((behind, total),) = re.findall(r"attempt 2: goes on after (\d+) of (\d+) epochs", log)
    assert 1 <= int(behind) <= int(total) == EPOCHS
    ran = re.findall(r"attempt 2: completed; (\d+) metrics records were written here", log)
    assert ran == [str(EPOCHS - int(behind))], "only the epochs that were left were run"
    records = trainings.api.get(f"/operations/{name}/metrics", cursor=0)["epochs"]
    assert [record["epoch"] for record in records] == list(range(1, EPOCHS + 1))
    assert any(f"goes on after {behind} of {EPOCHS} epochs" in line for line in view["story"])
    assert view["result_summary"]["model_digest"] == model
    return view


def test_after_kill_9_of_the_worker_another_one_goes_on_from_the_newest_that_is_whole(
    trainings: Trainings, undisturbed: str
) -> None:
    worker = trainings.worker()
    name = trainings.start()
    seen = trainings.checkpointed(name, 2)
    worker.kill()
    trainings.given_up(trainings.name)
    newest = trainings.api.get(f"/operations/{name}")["checkpoint_digest"]
    assert newest in trainings.artifacts()
    file = trainings.parts.home / "artifacts" / newest[:2] / newest
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    trainings.worker()
    view = ended_as(trainings, name, undisturbed)
    assert any(f"checkpoint {newest[:12]} skipped" in line for line in view["story"]), view["story"]
    assert f"Checkpoint {newest[:12]} is skipped" in trainings.log(name)
    assert view["checkpoint_digest"] is None
    gone = {*seen, newest}
    wait_for(lambda: not gone & trainings.artifacts(), "checkpoints of what is completed are removed")


def test_after_kill_9_of_the_job_the_same_worker_goes_on(trainings: Trainings, undisturbed: str) -> None:
    worker = trainings.worker()
    idle = {process.pid for process in descendants(worker.pid)}
    name = trainings.start()
    trainings.checkpointed(name)
    for process in descendants(worker.pid):
        if process.pid not in idle:
            process.send_signal(signal.SIGKILL)
    ended_as(trainings, name, undisturbed)


def test_a_worker_that_stops_hands_on_what_it_has(trainings: Trainings, undisturbed: str) -> None:
    worker = trainings.worker()
    name = trainings.start()
    (before,) = trainings.checkpointed(name)
    assert worker.stop() == 0
    view = trainings.api.get(f"/operations/{name}")
    assert (view["status"], view["failures"]) == ("pending", 0), view
    assert view["checkpoint_digest"] in trainings.artifacts()
    assert view["checkpoint_digest"] != before, "it is checkpointed at the stop"
    assert any("released by" in line for line in view["story"])
    assert "attempt 1: stopped before its end" in trainings.log(name)
    assert "cancelled" not in trainings.log(name), "nobody cancelled it"
    trainings.worker()
    ended_as(trainings, name, undisturbed)


def test_a_cancelled_training_is_resumed_by_the_command(trainings: Trainings, undisturbed: str) -> None:
    """Without a checkpoint on the way: the cancel writes one, also in the middle of an epoch."""
    trainings.worker()
    name = trainings.start()
    advancing(trainings.api, name)
    trainings.api.post(f"/operations/{name}/cancel")
    cancelled = finished(trainings.api, name)
    assert cancelled["status"] == "cancelled"
    done = ktrdr("operations", "resume", name, env=trainings.parts.environment())
    assert done.returncode == 0, done.stderr
    child = next(
        view for view in trainings.api.get("/operations")["operations"] if view["parent_operation_id"] == name
    )
    assert (child["status"], child["attempt"]) == ("completed", 1)
    assert child["result_summary"]["model_digest"] == undisturbed
    log = trainings.log(child["operation_id"])
    ((behind, _),) = re.findall(r"attempt 1: goes on after (\d+) of (\d+) epochs", log)
    assert int(behind) >= 1
    assert f"completed; {EPOCHS - int(behind)} metrics records were written here" in log


# --- backtests --------------------------------------------------------------------------------------------------------


def figures(view: Any) -> Any:
    """What of an ended backtest must not depend on how often it was interrupted."""
    assert view["status"] == "completed", view
    return view["result_summary"], {
        name: view["artifacts"][name] for name in ("result", "trades", "equity", "metrics")
    }


@pytest.fixture(scope="module")
def backtest(trainings: Trainings, undisturbed: str) -> tuple[dict[str, str], Any]:
    """The request of a backtest, and its figures where nobody disturbs it."""
    models = trainings.api.get("/models")["items"]
    model = next(model["model_id"] for model in models if model["bundle"] == undisturbed)
    body = {"model_id": model, "symbol": "SP500", "start_date": "2008-01-01"}
    worker = trainings.parts.worker("backtesting", "b0", home=trainings.parts.root / "b0")
    view = finished(trainings.api, str(trainings.api.post("/backtests/start", body)["operation_id"]))
    assert view["attempt"] == 1
    worker.stop()
    return body, figures(view)


def test_after_kill_9_a_backtest_goes_on_at_another_worker(
    trainings: Trainings, backtest: tuple[dict[str, str], Any]
) -> None:
    body, undisturbed = backtest
    api = trainings.api
    first = trainings.slow_worker("backtesting", "b1")
    name = str(api.post("/backtests/start", body)["operation_id"])
    trainings.checkpointed(name)
    first.kill()
    assert api.get(f"/operations/{name}")["checkpoint_digest"] in trainings.artifacts()
    second = trainings.slow_worker("backtesting", "b2")
    view = finished(api, name)
    log = trainings.log(name)
    ((behind, total),) = re.findall(r"attempt 2: goes on after ([\d,]+) of ([\d,]+) bars", log)
    done, bars = (int(number.replace(",", "")) for number in (behind, total))
    assert 0 < done < bars
    records = api.get(f"/operations/{name}/metrics", cursor=0)["bars"]
    ((ran),) = re.findall(r"attempt 2: completed; (\d+) metrics records were written here", log)
    assert int(ran) == sum(record["bar"] > done for record in records) < len(records)
    assert [record["bar"] for record in records] == sorted({record["bar"] for record in records})
    assert records[-1]["bar"] == bars
    assert figures(view) == undisturbed
    second.stop()
