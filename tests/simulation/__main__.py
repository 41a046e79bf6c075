"""``python -m simulation --seeds 1,2,3``: a line per seed; ends 1 at a broken law, 3 if a fault never occurred."""

# ruff: noqa: T201 - a command speaks by printing

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from simulation.plan import FAULTS, SITUATIONS, Size
from simulation.shrink import Plan, shrink
from simulation.world import Report, simulate

_DEFAULT_SEEDS = "3,6,10"  # together they bring about every fault and situation
_SHRINK_S = 120.0
_S_PER_SHARE = (
    25.0  # virtual seconds in which a worker gets one operation: a little less than it takes for one
)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    chosen = _read(arguments)
    size = Size(workers=chosen.workers, operations=chosen.operations, chaos_s=chosen.chaos_s)
    without = tuple(filter(None, chosen.without.split(",")))
    faults: Counter[str] = Counter()
    situations: Counter[str] = Counter()
    code = 0
    for plan, report, cpu_s in _runs(
        [Plan(seed, size, without) for seed in _seeds(chosen.seeds)], chosen.jobs
    ):
        print(_line(report, cpu_s), flush=True)
        faults += report.faults
        situations += report.situations
        if report.violation is not None:
            print(f"  BROKEN {report.violation}", flush=True)
            code = 1
            if chosen.stop:
                break
            _tell(plan, report, chosen.shrink_s)
    never = [name for name in FAULTS if not faults[name]] + [n for n in SITUATIONS if not situations[n]]
    if never and (chosen.demand_all or chosen.seeds == _DEFAULT_SEEDS):
        print(f"never occurred, so nothing was proved about it: {', '.join(never)}")
        code = code or 3
    return code


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--seeds", default=_DEFAULT_SEEDS, help="comma-separated numbers, or FIRST-LAST")
    parser.add_argument("--workers", type=int, default=Size().workers)
    parser.add_argument("--operations", type=int, default=Size().operations)
    parser.add_argument(
        "--chaos-s", type=float, help="virtual seconds of faults; so many that the fleet is busy"
    )
    parser.add_argument(
        "--without", default="", help="kinds of faults to leave out, as a shrunk run names them"
    )
    parser.add_argument("--jobs", type=int, default=1, help="seeds that run at the same time")
    parser.add_argument("--shrink-s", type=float, default=_SHRINK_S, help="seconds for finding a smaller run")
    parser.add_argument("--stop", action="store_true", help="end at the first seed that breaks a law")
    parser.add_argument(
        "--demand-all", action="store_true", help="fail if a fault or situation never occurred"
    )
    chosen = parser.parse_args(arguments)
    if chosen.chaos_s is None:
        chosen.chaos_s = max(Size().chaos_s, _S_PER_SHARE * chosen.operations / chosen.workers)
    return chosen


def _runs(plans: list[Plan], jobs: int) -> Iterator[tuple[Plan, Report, float]]:
    """Every plan with its report and the CPU seconds it took, in the order of the plans."""
    if jobs == 1 or len(plans) == 1:
        yield from ((plan, *_run(plan)) for plan in plans)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            for plan, (report, cpu_s) in zip(plans, pool.map(_run, plans), strict=True):
                yield plan, report, cpu_s
        finally:
            pool.shutdown(cancel_futures=True)


def _run(plan: Plan) -> tuple[Report, float]:
    began = time.process_time()
    with tempfile.TemporaryDirectory() as home:
        report = simulate(plan.seed, Path(home), plan.size, plan.weather)
    return report, time.process_time() - began


def _tell(plan: Plan, report: Report, budget_s: float) -> None:
    """The story of the operation that it befell, in the smallest run found that breaks the same law."""
    small, shown = shrink(plan, report, lambda smaller: _run(smaller)[0], budget_s)
    print(f"  shrunk to {small}: {shown.violation}")
    print(*shown.story, sep="\n    ", flush=True)


def _line(report: Report, cpu_s: float) -> str:
    fired = ", ".join(f"{name} {count}" for name, count in sorted(report.faults.items()))
    ends = ", ".join(f"{count} {name}" for name, count in sorted(report.outcomes.items()))
    return (
        f"seed {report.seed}: {report.events} events, {report.operations} operations ({ends}), "
        f"{report.virtual_s:.0f} s in {cpu_s:.1f} CPU s, faults: {fired}; trace {report.digest}"
    )


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in text.split(",")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
