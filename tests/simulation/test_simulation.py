"""The control plane in virtual time: what must hold under faults, that all faults occur, and that a run repeats itself."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest

from ktrdr.backend.operations.service import operation_view
from ktrdr.errors import Unavailable
from ktrdr.operations.machine import new_operation
from ktrdr.testing.operations import T0, a_submission
from simulation.commands import Commands
from simulation.laws_checkpoints import CheckpointLaws
from simulation.laws_queue import QueueLaws
from simulation.plan import FAULTS, SITUATIONS, WITH_SEVERAL, Size, Weather
from simulation.shelf import Made, Shelf
from simulation.shrink import Plan
from simulation.world import simulate
from support.processes import unmeasured

if TYPE_CHECKING:
    from ktrdr.backend.wiring import Backend
    from ktrdr.operations.model import Operation
    from simulation.disk import Disk
    from simulation.laws import Laws
    from simulation.trace import Trace

SEEDS = (7, 18, 33)  # as in the Makefile: together they bring about everything that is demanded
SMALL = Size(workers=4, operations=40, chaos_s=250.0)


def test_the_usual_seeds_keep_every_law_and_every_fault_occurs(tmp_path: Path) -> None:
    faults: Counter[str] = Counter()
    situations: Counter[str] = Counter()
    for seed in SEEDS:
        report = simulate(seed, tmp_path / str(seed))
        assert report.violation is None, "\n".join([str(report.violation), *report.story])
        assert report.operations >= Size().operations, "and what is retried"
        faults += report.faults
        situations += report.situations
    assert [name for name in FAULTS if not faults[name]] == []
    assert [name for name in SITUATIONS if not situations[name]] == []
    assert [name for name in WITH_SEVERAL if not faults[name] + situations[name]] == []


def test_in_fine_weather_nothing_is_lost_and_nothing_runs_twice(tmp_path: Path) -> None:
    report = simulate(6, tmp_path, SMALL, Weather.calm())
    assert report.violation is None
    assert set(report.faults) <= {"reorder"}, "overtaking is no fault of anybody"
    lost = ("lease expired", "worker lost", "unreachable", "adopted", "late result ignored")
    assert {name: report.situations[name] for name in lost} == dict.fromkeys(lost, 0)
    assert report.outcomes["completed"] > 0


def test_in_fine_weather_one_of_several_backends_leads_for_ever(tmp_path: Path) -> None:
    report = simulate(2, tmp_path, replace(SMALL, backends=3), Weather.calm())
    assert report.violation is None
    assert report.backends == 3
    assert report.situations["submitted to a follower"] > 0
    changes = ("leader changed", "old leader's write refused")
    assert {name: report.situations[name] for name in changes} == dict.fromkeys(changes, 0)


@pytest.mark.parametrize("backends", ["1", "3"])
def test_the_same_seed_gives_the_same_trace_under_any_hash_seed(backends: str) -> None:
    size = ["--workers", "4", "--operations", "40", "--chaos-s", "250", "--backends", backends]
    lines = set()
    for hash_seed in ("0", "4242"):
        environment = {**unmeasured(), "PYTHONHASHSEED": hash_seed}
        paths = [str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        done = subprocess.run(
            [sys.executable, "-m", "simulation", "--seeds", "7", *size],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout.startswith("seed 7: ")
        lines.add(done.stdout.rpartition("trace ")[2])
    assert len(lines) == 1
    assert len(lines.pop().strip()) == 64


def test_a_plan_names_all_that_repeats_it() -> None:
    said = "--seeds 7 --workers 4 --operations 40 --chaos-s 250"
    assert str(Plan(7, SMALL)) == said
    size = replace(SMALL, longest_s=15.0, backends=3)
    assert str(Plan(7, size, ("drop",))) == f"{said} --longest-s 15 --backends 3 --without drop"


def test_shorter_jobs_take_fewer_events(tmp_path: Path) -> None:
    took = []
    for longest_s in (60.0, 3.0):
        size = replace(SMALL, chaos_s=50.0, longest_s=longest_s)
        report = simulate(7, tmp_path / str(longest_s), size, Weather.calm())
        assert report.violation is None
        took.append(report.events)
    assert took[1] < took[0]


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    digests = {simulate(seed, tmp_path / str(seed), SMALL).digest for seed in (1, 2)}
    assert len(digests) == 2


def test_a_run_does_not_depend_on_those_before_it() -> None:
    """As it did where things were taken up in the order of their addresses."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**unmeasured(), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    told = set()
    for seeds in ("7", "2,7"):
        command = [sys.executable, "-m", "simulation", "--seeds", seeds]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        told.add(done.stdout.rpartition("trace ")[2])
    assert len(told) == 1


class _Judge:
    """The laws as far as those of the queue and of checkpoints need them."""

    clock_s = 0.0
    record: Operation | None = None
    keys: ClassVar = {"a key": "op_a"}

    def find(self, _operation_id: str) -> Operation | None:
        return self.record

    def now(self) -> float:
        return self.clock_s

    def demand(self, kept: bool, law: str, found: str, operation_id: str) -> None:
        assert kept, f"{law}: {found}"


def test_positions_in_the_queue_are_remembered_by_time_however_many_are_asked_for() -> None:
    """With 200,000 that wait, 10,000 others were asked for between an answer of the ledger and the view made of it."""
    judge = _Judge()
    queue = QueueLaws(cast("Laws", judge))
    waiting = [new_operation(a_submission(f"op_{number:05d}"), T0) for number in range(20_000)]
    for number, operation in enumerate(waiting):
        queue.answered(operation, number + 1, None)
    judge.clock_s = 119.0
    queue.shown(operation_view(waiting[0], 1, None))
    with pytest.raises(AssertionError, match=r"pending at 2, and the ledger said \[1\]"):
        queue.shown(operation_view(waiting[0], 2, None))
    judge.clock_s = 121.0
    queue.answered(waiting[1], 2, None)
    with pytest.raises(AssertionError, match=r"the ledger said \[\]"):
        queue.shown(operation_view(waiting[0], 1, None))


@pytest.mark.parametrize("recorded", [False, True])
def test_a_checkpoint_that_was_found_damaged_is_given_up_even_if_a_late_copy_mends_it(recorded: bool) -> None:
    """Ten thousand workers brought it about: an upload of attempt 1 that arrived when attempt 3 was to begin."""
    judge = _Judge()
    shelf = Shelf(cast("Trace", judge), Random(1))
    laws = CheckpointLaws(cast("Laws", judge), shelf, Counter())
    made = Made("op_a", 1, 5)
    shelf.take(b"five steps", made, torn=0.0)
    (digest,) = shelf.made
    judge.record = replace(new_operation(a_submission("op_a"), T0), attempt=1, checkpoint_digest=digest)
    laws.told("op_a", 1, digest)
    shelf.discard(digest, unused_since=math.inf)
    judge.record = replace(judge.record, attempt=2)
    laws.begun("op_a", 2, "", 0, [digest])
    judge.record = replace(judge.record, attempt=3, checkpoint_digest=digest if recorded else None)
    laws.begun("op_a", 3, "", 0, [])  # nobody has brought it again
    shelf.take(b"five steps", made, torn=0.0)
    with pytest.raises(AssertionError, match="acknowledged work") if recorded else nullcontext():
        laws.begun("op_a", 3, "", 0, [])


def test_work_whose_checkpoint_nobody_found_damaged_is_not_done_again() -> None:
    judge = _Judge()
    shelf = Shelf(cast("Trace", judge), Random(1))
    laws = CheckpointLaws(cast("Laws", judge), shelf, Counter())
    shelf.take(b"five steps", Made("op_a", 1, 5), torn=0.0)
    (digest,) = shelf.made
    judge.record = replace(new_operation(a_submission("op_a"), T0), attempt=1, checkpoint_digest=digest)
    laws.told("op_a", 1, digest)
    judge.record = replace(judge.record, attempt=2, checkpoint_digest=None)
    with pytest.raises(AssertionError, match="acknowledged work"):
        laws.begun("op_a", 2, "", 0, [])


@pytest.mark.parametrize("forgotten", [False, True])
async def test_what_is_recorded_is_not_refused_unless_it_is_forgotten(forgotten: bool) -> None:
    """A copy of a submission may arrive minutes late, when what it had become was deleted."""
    judge = _Judge()
    judge.record = None if forgotten else new_operation(a_submission("op_a"), T0)
    follower, trace = SimpleNamespace(leads=False), SimpleNamespace(situations=Counter())
    commands = Commands(
        cast("Backend", follower),
        cast("Any", None),
        cast("Disk", None),
        cast("Laws", judge),
        cast("Trace", trace),
    )

    async def refused() -> Operation:
        raise Unavailable("Every training worker is busy, and the request asked not to wait.")

    found = pytest.raises(Unavailable if forgotten else AssertionError, match="asked not to wait")
    with found:
        await commands.submitted(refused(), {"when_busy": "reject", "require_gpu": False}, "a key")
    assert trace.situations == {"refused because it would wait": 1}
