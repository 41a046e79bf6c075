"""The hunt for planted bugs, and the search for a smaller run, on a few examples; `make sim-mutants` hunts them all."""

from __future__ import annotations

from collections import Counter

import pytest

from simulation.mutant import Mutant, Patch, mutated
from simulation.mutants import MUTANTS, main
from simulation.plan import Size
from simulation.shrink import Plan, shrink
from simulation.trace import Violation
from simulation.world import Report


def test_every_planted_bug_fits_the_sources() -> None:
    for mutant in MUTANTS:
        for file, text in mutated(mutant).items():
            compile(text, file, "exec")
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


def test_a_bug_that_fits_no_more_is_told_by_name() -> None:
    old = Mutant("an old one", (Patch("operations/machine.py", "no such text", ""),))
    with pytest.raises(
        ValueError, match=r"Mutant 'an old one' is out of date.* 0 times in src/ktrdr/operations"
    ):
        mutated(old)


def test_a_planted_bug_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "no lease before the first probe", "--seeds", "2"]) == 0
    told = capsys.readouterr().out
    assert "found   no lease before the first probe: seed 1: who holds has a lease" in told
    assert told.endswith("1 of 1 planted bugs found\n")


def test_no_bug_of_that_name_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "there is none of this name"]) == 1
    assert capsys.readouterr().out == "0 of 0 planted bugs found\n"


def report_of(plan: Plan, violation: Violation | None) -> Report:
    nothing: Counter[str] = Counter()
    return Report(plan.seed, 0, plan.size.operations, "", 0.0, nothing, nothing, nothing, violation=violation)


def test_a_run_shrinks_to_what_the_violation_needs() -> None:
    broken, other = Violation("a law", "broken", "op"), Violation("another law", "broken", "op")

    def run(plan: Plan) -> Report:
        if plan.size.operations < 10:
            return report_of(plan, other)
        needed = plan.size.workers >= 4 and "drop" not in plan.without
        return report_of(plan, broken if needed else None)

    plan = Plan(7, Size(workers=64, operations=640))
    small, report = shrink(plan, run(plan), run, budget_s=60.0)
    assert (small.size.workers, small.size.operations, report.violation) == (4, 10, broken)
    assert "drop" not in small.without
    assert "delay" in small.without
    assert str(small).startswith("--seeds 7 --workers 4 --operations 10 ")
    assert " --backends 1 " in str(small), "this seed has three of its own"


def test_shrinking_ends_in_time() -> None:
    plan = Plan(7, Size())
    report = report_of(plan, Violation("a law", "broken", "op"))
    assert shrink(plan, report, lambda smaller: report, budget_s=-1.0) == (plan, report)
