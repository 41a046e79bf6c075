"""The job's side: iterate, publish, stop at a yield, and always leave an outcome."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.jobs.environment import Job, JobResult
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.progress import Metric, Progress
from ktrdr.testing.worker_jobs import spec
from ktrdr.workers.child import drain, jsonable, perform
from ktrdr.workers.runfolder import Outcome, RunFolder, Ticket


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[ProgressBridge]:
    with ProgressBridge.create(tmp_path / "bridge") as made:
        yield made


def ticket(instruction: str, job: str = "ktrdr.testing.worker_jobs:perform") -> Ticket:
    return Ticket(
        operation_id="op", attempt=1, job=job, spec=spec(instruction).model_dump_json(), cache="", api_urls=""
    )


def outcome_of(tmp_path: Path, bridge: ProgressBridge, instruction: str, **extra: str) -> Outcome:
    return perform(ticket(instruction, **extra), FileArtifactStore(tmp_path / "cache"), tmp_path, bridge)


def test_progress_metrics_and_result(tmp_path: Path, bridge: ProgressBridge) -> None:
    outcome = outcome_of(tmp_path, bridge, "count 3")
    assert outcome.status == "completed"
    assert outcome.summary == {"total_return": None, "items": 7}
    assert outcome.artifacts == {"result": sha256_of(b"result of count 3")}
    assert bridge.metrics(0)[0] == [{"item": 0}, {"item": 1}, {"item": 2}]
    bridge.flush()
    assert bridge.read() == Progress(3, 3, "item 3", {"current_bar": 3})


@pytest.mark.parametrize(
    ("instruction", "error"),
    [
        ("fail", "There are 3 bars; the warm-up needs 14."),
        ("crash", "ZeroDivisionError: a bug"),
        ("memory", "The job ran out of memory: cannot allocate"),
    ],
)
def test_every_exception_becomes_a_failure(
    tmp_path: Path, bridge: ProgressBridge, instruction: str, error: str
) -> None:
    outcome = outcome_of(tmp_path, bridge, instruction)
    assert (outcome.status, outcome.error) == ("failed", error)
    assert outcome.out_of_memory is (instruction == "memory")


def test_a_disk_that_does_not_serve_is_no_failure_of_the_job(tmp_path: Path, bridge: ProgressBridge) -> None:
    (tmp_path / "cache").write_text("a file where the folder was")
    outcome = outcome_of(tmp_path, bridge, "count 1")
    assert outcome.status == "child_died", "another worker may have a better disk"
    assert "This worker's disk does not serve the job" in str(outcome.error)


def test_words_that_utf_8_lacks_and_long_ones_can_be_sent(
    tmp_path: Path, bridge: ProgressBridge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(
        logging.CRITICAL, "ktrdr.job"
    )  # what cannot be sent cannot be captured by parallel runs either
    job = "ktrdr.testing.chaos_jobs:perform"
    assert outcome_of(tmp_path, bridge, "poison error", job=job).error == "ValueError: ?"
    assert outcome_of(tmp_path, bridge, "poison summary", job=job).summary == {"x": "?"}
    assert len(str(outcome_of(tmp_path, bridge, "shout 100000", job=job).error)) == 8_000


def test_an_unknown_job_is_a_failure(tmp_path: Path, bridge: ProgressBridge) -> None:
    outcome = outcome_of(tmp_path, bridge, "count 1", job="ktrdr.testing.worker_jobs:absent")
    assert outcome.status == "failed"
    assert "absent" in str(outcome.error)


def test_cancel_is_seen_at_the_next_yield_and_the_job_is_closed(bridge: ProgressBridge) -> None:
    story: list[str] = []

    def job() -> Job:
        try:
            yield Progress(1, 9)
            story.append("after one")
            bridge.request_cancel()
            yield Metric({"epoch": 1})
            story.append("too far")
            yield Progress(2, 9)
        finally:
            story.append("closed")
        return JobResult()

    assert drain(job(), bridge).status == "cancelled"
    assert story == ["after one", "closed"]
    assert bridge.metrics(0)[0] == [{"epoch": 1}]


def test_a_cancel_before_the_start_never_begins(tmp_path: Path, bridge: ProgressBridge) -> None:
    bridge.request_cancel()
    assert outcome_of(tmp_path, bridge, "kill").status == "cancelled"


def test_plain_json() -> None:
    value = {
        "a": np.float64(1.5),
        "b": math.inf,
        3: (np.int8(2), np.bool_(True), "x"),
        "p": Path("p"),
        "n": None,
    }
    plain = jsonable(value)
    assert plain == {"a": 1.5, "b": None, "3": [2, True, "x"], "p": "p", "n": None}
    json.dumps(plain, allow_nan=False)


def test_run_folder_holds_ticket_log_and_outcome(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "op.1")
    folder.prepare(ticket("hold"))
    assert folder.ticket() == ticket("hold")
    assert folder.root.stat().st_mode & 0o777 == 0o700
    assert folder.scratch.is_dir()
    assert folder.outcome() is None
    made = Outcome(status="failed", error="e", out_of_memory=True)
    folder.finish(made)
    assert folder.outcome() == made
