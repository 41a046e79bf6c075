"""When a job is checkpointed, what is left of it, and from which checkpoint a job goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.errors import KtrdrError, ServerUnreachable, UnusableCheckpoint
from ktrdr.jobs.checkpoint import Checkpoint, ResumePoint
from ktrdr.jobs.environment import Job, JobEnvironment, JobResult
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.progress import Metric, Progress
from ktrdr.protocol.specs import JobSpec, canonical_json
from ktrdr.settings import CheckpointSettings
from ktrdr.snapshot import Snapshot
from ktrdr.testing.clock import FakeClock
from ktrdr.testing.worker_jobs import spec
from ktrdr.workers.checkpoints import CheckpointKeeper, JobIdentity
from ktrdr.workers.child import drain, perform
from ktrdr.workers.runfolder import CheckpointLog, RunFolder, Ticket

SPEC = sha256_of(canonical_json(spec("test")))
BARS = 10


def counting(_: JobSpec, env: JobEnvironment) -> Job:
    """Ten bars, a metric and a resume point after each; the state is how many are done and what was seen."""
    state = dict(env.resume.snapshot.values) if env.resume else {"done": 0, "seen": []}
    if state["done"] == 13:
        raise UnusableCheckpoint("thirteen of ten")
    yield Progress(state["done"], BARS, "begin")
    while state["done"] < BARS:
        state["done"] += 1
        state["seen"] = [*state["seen"], state["done"]]
        yield Metric({"bar": state["done"]})
        yield ResumePoint(state["done"], BARS, "bars", lambda: Snapshot(dict(state), {"x": np.ones(2)}))
        yield Progress(state["done"], BARS, "on")
    return JobResult({"seen": state["seen"]})


JOB = f"{__name__}:counting"


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[ProgressBridge]:
    with ProgressBridge.create(tmp_path / "bridge") as made:
        yield made


class Job10:
    """One attempt at ``counting`` in a folder of its own."""

    def __init__(self, folder: Path, bridge: ProgressBridge, **settings: Any) -> None:
        self.cache = FileArtifactStore(folder / "cache")
        self.folder = RunFolder(folder)
        self.bridge = bridge
        self.clock = FakeClock()
        self.keeper = CheckpointKeeper(
            cache=self.cache,
            artifacts=self.cache,
            folder=self.folder,
            job=JobIdentity("op", 1, "backtesting", SPEC),
            settings=CheckpointSettings(**settings),
            clock=self.clock,
        )

    def env(self, resume: Checkpoint | None = None) -> JobEnvironment:
        return JobEnvironment(self.cache, self.folder.root, resume)

    def run(self, each: Callable[[int], object] = lambda _: None) -> Any:
        """Run ``counting``; ``each`` is called with the bar before its resume point is offered."""

        def watched() -> Job:
            inner = counting(spec("test"), self.env())
            while True:
                try:
                    item = next(inner)
                except StopIteration as end:
                    result: JobResult = end.value
                    return result
                if isinstance(item, ResumePoint):
                    each(item.done)
                yield item

        return drain(watched(), self.bridge, self.keeper)

    def saved(self) -> list[int]:
        """After how many bars the checkpoints that are told were taken, newest first."""
        return [self.read(digest).done for digest in self.folder.checkpoints().saved]

    def read(self, digest: str) -> Checkpoint:
        return Checkpoint.read(self.cache, digest, kind="backtesting", spec_digest=SPEC)

    def put(self, done: int, **changes: Any) -> str:
        """A checkpoint in the cache."""
        fields: dict[str, Any] = {
            "format": "backtesting/1",
            "spec_digest": SPEC,
            "operation_id": "op",
            "attempt": 0,
            "done": done,
            "total": BARS,
            "unit": "bars",
            "metrics": tuple({"bar": n + 1} for n in range(done)),
            "snapshot": Snapshot({"done": done, "seen": list(range(1, done + 1))}),
        }
        return self.cache.put(Checkpoint(**fields | changes).to_bytes())


def test_by_default_a_short_job_writes_none(tmp_path: Path, bridge: ProgressBridge) -> None:
    job = Job10(tmp_path, bridge)
    assert job.run(lambda _: job.clock.advance(2.9)).status == "completed"
    assert list(job.cache.digests()) == []
    assert job.folder.checkpoints() == CheckpointLog()


def test_by_time(tmp_path: Path, bridge: ProgressBridge) -> None:
    job = Job10(tmp_path, bridge, every_s=3.0)
    seen: list[list[int]] = []

    def second(_: int) -> None:
        seen.append(job.saved())
        job.clock.advance(1.0)

    job.run(second)
    assert seen[4:8] == [[4], [4], [4], [7, 4]], "the time runs from the first place where it could be left"
    assert job.saved() == [10, 7], "the two newest"
    assert len(list(job.cache.digests())) == 2


def test_by_count(tmp_path: Path, bridge: ProgressBridge) -> None:
    job = Job10(tmp_path, bridge, every_s=0.0, every_bars=4, every_epochs=1)
    assert job.run().status == "completed"
    assert job.saved() == [8, 4]
    assert [record["bar"] for record in job.read(job.folder.checkpoints().saved[0]).metrics] == list(
        range(1, 9)
    )


def test_a_dear_checkpoint_is_taken_seldom(tmp_path: Path, bridge: ProgressBridge) -> None:
    """One that takes a second is taken every hundred seconds at most: one per cent."""

    class Slow(FileArtifactStore):
        def put(self, content: bytes) -> str:
            job.clock.advance(1.0)
            return super().put(content)

    job = Job10(tmp_path, bridge, every_s=5.0)
    job.keeper.cache = Slow(tmp_path / "cache")
    job.run(lambda _: job.clock.advance(30.0))
    assert job.saved() == [10, 6], "four times thirty seconds apart"


@pytest.mark.parametrize("settings", [{}, {"every_s": 0.0}])
def test_a_job_that_is_to_stop_is_run_to_the_next_place_and_written_down(
    tmp_path: Path, bridge: ProgressBridge, settings: dict[str, float]
) -> None:
    job = Job10(tmp_path, bridge, **settings)
    outcome = job.run(lambda bar: bar == 5 and bridge.request_cancel())
    assert outcome.status == "cancelled"
    assert job.saved() == [5]
    assert bridge.metrics(0)[0][-1] == {"bar": 5}


def test_a_job_that_was_asked_to_stop_between_two_places_goes_on_to_the_next(
    tmp_path: Path, bridge: ProgressBridge
) -> None:
    job = Job10(tmp_path, bridge)

    def items() -> Job:
        for item in counting(spec("test"), job.env()):
            yield item
            if isinstance(item, ResumePoint) and item.done == 5:
                bridge.request_cancel()
        return JobResult()

    assert drain(items(), bridge, job.keeper).status == "cancelled"
    assert job.saved() == [6]


def test_a_job_that_never_comes_to_such_a_place_is_left_after_a_second(
    tmp_path: Path, bridge: ProgressBridge
) -> None:
    job = Job10(tmp_path, bridge)
    turns = []

    def items() -> Job:
        yield ResumePoint(1, 9, "bars", lambda: Snapshot({}))
        bridge.request_cancel()
        while True:
            turns.append(1)
            job.clock.advance(0.25)
            yield Progress(2, 9)

    assert drain(items(), bridge, job.keeper).status == "cancelled"
    assert len(turns) in (4, 5)
    assert job.saved() == []


def test_a_disk_that_is_full_costs_the_checkpoint_not_the_job(
    tmp_path: Path, bridge: ProgressBridge, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(FileArtifactStore):
        def put(self, content: bytes) -> str:
            raise OSError(28, "No space left on device")

    job = Job10(tmp_path, bridge, every_bars=5, every_s=0.0)
    job.keeper.cache = Full(tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert job.run().status == "completed"
    assert caplog.text.count("could not be written: [Errno 28] No space left") == 2
    (tmp_path / "checkpoints.part").mkdir()
    job = Job10(tmp_path, bridge, every_bars=5, every_s=0.0)
    assert job.run().status == "completed"
    assert "News of a checkpoint could not be left" in caplog.text


# --- going on ---------------------------------------------------------------------------------------------------------


def performed(job: Job10, *checkpoints: str) -> Any:
    ticket = Ticket(
        operation_id="op", attempt=1, job=JOB, spec=spec("test").model_dump_json(), cache="", api_urls="",
        checkpoints=checkpoints,
    )  # fmt: skip
    return perform(ticket, job.cache, job.folder.root, job.bridge, job.keeper)


def bars(job: Job10) -> list[Any]:
    return [record["bar"] for record in job.bridge.metrics(0)[0]]


def test_it_goes_on_where_it_was_and_the_metrics_are_whole(tmp_path: Path, bridge: ProgressBridge) -> None:
    job = Job10(tmp_path, bridge, every_bars=3, every_s=0.0)
    digest = job.put(6)
    outcome = performed(job, digest)
    assert outcome.summary == {"seen": list(range(1, 11))}
    assert bars(job) == list(range(1, 11))
    assert job.keeper.written == 4, "only the remaining bars were run"
    told = job.folder.checkpoints()
    assert told.notes == [f"goes on after 6 of 10 bars (checkpoint {digest[:12]})"]
    assert job.saved() == [9], "counted from where it went on"
    assert [record["bar"] for record in job.read(told.saved[0]).metrics] == list(range(1, 10))


class Unreachable:
    """A store that nobody answers for."""

    def read(self, digest: str) -> bytes:
        raise ServerUnreachable("nobody answers")


@pytest.mark.parametrize(
    "fault", ["missing", "torn", "foreign", "old format", "no checkpoint", "refused by the job"]
)
@pytest.mark.parametrize("older", [True, False])
def test_one_that_cannot_be_used_is_reported_and_an_older_one_or_the_start_serves(
    tmp_path: Path, bridge: ProgressBridge, fault: str, older: bool, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job10(tmp_path, bridge)
    changes: dict[str, Any] = {
        "foreign": {"spec_digest": "f" * 64},
        "old format": {"format": "backtesting/0"},
        "refused by the job": {"snapshot": Snapshot({"done": 13})},
    }.get(fault, {})
    bad = job.cache.put(b"hello") if fault == "no checkpoint" else job.put(8, **changes)
    if fault == "missing":
        job.cache.delete(bad)
    elif fault == "torn":
        job.cache.location(bad).write_bytes(job.cache.read(bad)[:-1])
    good = job.put(3)
    with caplog.at_level(logging.WARNING):
        outcome = performed(job, bad, *([good] if older else []))
    assert outcome.summary == {"seen": list(range(1, 11))}
    assert bars(job) == list(range(1, 11))
    assert job.keeper.written == (7 if older else 10)
    assert f"Checkpoint {bad[:12]} is skipped" in caplog.text
    told = job.folder.checkpoints()
    assert told.refused == [bad]
    assert any(note.startswith(f"checkpoint {bad[:12]} skipped: ") for note in told.notes)
    assert [note for note in told.notes if note.startswith("goes on after 3")] == (
        [f"goes on after 3 of 10 bars (checkpoint {good[:12]})"] if older else []
    )


def test_one_that_cannot_be_fetched_now_is_not_struck_out(tmp_path: Path, bridge: ProgressBridge) -> None:
    job = Job10(tmp_path, bridge)
    job.keeper.artifacts = Unreachable()  # type: ignore[assignment]
    assert performed(job, "e" * 64).summary == {"seen": list(range(1, 11))}
    told = job.folder.checkpoints()
    assert told.refused == []
    assert told.notes == [f"checkpoint {'e' * 12} skipped: nobody answers"]


def test_other_failures_of_a_job_that_went_on_are_failures(tmp_path: Path, bridge: ProgressBridge) -> None:
    job = Job10(tmp_path, bridge)
    digest = job.put(6, snapshot=Snapshot({"seen": []}))
    outcome = performed(job, digest)
    assert (outcome.status, outcome.error) == ("failed", "KeyError: 'done'")
    assert isinstance(UnusableCheckpoint("x"), KtrdrError)
