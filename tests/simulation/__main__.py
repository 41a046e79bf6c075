"""``python -m simulation --seeds 1,2,3``: a line per seed; ends 1 at a broken law, 3 if a fault never occurred."""

# ruff: noqa: T201 - a command speaks by printing

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from simulation.plan import FAULTS, SITUATIONS, WITH_SEVERAL, Size
from simulation.shrink import Plan, shrink
from simulation.world import Report, simulate

_DEFAULT_SEEDS = "7,18,33"  # together they bring about every fault and situation
_SHRINK_S = 120.0
_S_PER_SHARE = (
    25.0  # virtual seconds in which a worker gets one operation: a little less than it takes for one
)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    chosen = _read(arguments)
    size = Size(
        workers=chosen.workers,
        operations=chosen.operations,
        chaos_s=chosen.chaos_s,
        backends=chosen.backends,
        longest_s=chosen.longest_s,
    )
    without = tuple(filter(None, chosen.without.split(",")))
    faults: Counter[str] = Counter()
    situations: Counter[str] = Counter()
    code, several = 0, False
    plans = [Plan(seed, size, without) for seed in _seeds(chosen.seeds)]
    for plan, report, cost in _runs(plans, chosen.jobs, chosen.tell_every_s):
        print(_line(report, cost), flush=True)
        faults += report.faults
        situations += report.situations
        several = several or report.backends > 1
        if report.violation is not None:
            print(f"  BROKEN {report.violation}", flush=True)
            code = 1
            if chosen.stop:
                break
            _tell(plan, report, chosen.shrink_s)
    never = [name for name in FAULTS if not faults[name]] + [n for n in SITUATIONS if not situations[n]]
    never += [name for name in WITH_SEVERAL if several and not faults[name] + situations[name]]
    if never and (chosen.demand_all or chosen.seeds == _DEFAULT_SEEDS):
        print(f"never occurred, so nothing was proved about it: {', '.join(never)}")
        code = code or 3
    return code


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--seeds", default=_DEFAULT_SEEDS, help="comma-separated numbers, or FIRST-LAST")
    parser.add_argument("--workers", type=int, default=Size().workers)
    parser.add_argument("--operations", type=int, default=Size().operations)
    parser.add_argument("--backends", type=int, help="on one ledger; as many as the seed has")
    parser.add_argument(
        "--chaos-s", type=float, help="virtual seconds of faults; so many that the fleet is busy"
    )
    parser.add_argument(
        "--longest-s", type=float, default=Size().longest_s, help="virtual seconds of the longest jobs"
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
    parser.add_argument("--tell-every-s", type=float, help="seconds between two lines that say how far it is")
    chosen = parser.parse_args(arguments)
    if chosen.chaos_s is None:
        chosen.chaos_s = max(Size().chaos_s, _S_PER_SHARE * chosen.operations / chosen.workers)
    return chosen


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one run. ``peak_mib`` is the most memory that its process ever had."""

    cpu_s: float
    peak_mib: int

    @classmethod
    def since(cls, began: float) -> _Cost:
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return cls(time.process_time() - began, peak_kib // 1024)

    def __str__(self) -> str:
        return f"{self.cpu_s:.1f} CPU s and {self.peak_mib} MiB"


def _runs(plans: list[Plan], jobs: int, tell_every_s: float | None) -> Iterator[tuple[Plan, Report, _Cost]]:
    """Every plan with its report and what it cost, in the order of the plans."""
    run = partial(_run, tell_every_s=tell_every_s)
    if jobs == 1 or len(plans) == 1:
        yield from ((plan, *run(plan)) for plan in plans)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            for plan, (report, cost) in zip(plans, pool.map(run, plans), strict=True):
                yield plan, report, cost
        finally:
            pool.shutdown(cancel_futures=True)


def _run(plan: Plan, tell_every_s: float | None = None) -> tuple[Report, _Cost]:
    began, told_at = time.process_time(), time.monotonic()

    def tell(how_far: str) -> None:
        nonlocal told_at
        if tell_every_s is not None and time.monotonic() - told_at >= tell_every_s:
            told_at = time.monotonic()
            print(f"{how_far}; {_Cost.since(began)}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as home:
        report = simulate(plan.seed, Path(home), plan.size, plan.weather, tell)
    return report, _Cost.since(began)


def _tell(plan: Plan, report: Report, budget_s: float) -> None:
    """The story of the operation that it befell, in the smallest run found that breaks the same law."""
    small, shown = shrink(plan, report, lambda smaller: _run(smaller)[0], budget_s)
    print(f"  shrunk to {small}: {shown.violation}")
    print(*shown.story, sep="\n    ", flush=True)


def _line(report: Report, cost: _Cost) -> str:
    fired = ", ".join(f"{name} {count}" for name, count in sorted(report.faults.items()))
    ends = ", ".join(f"{count} {name}" for name, count in sorted(report.outcomes.items()))
    return (
        f"seed {report.seed}: {report.backends} backends, {report.events} events, {report.operations} operations ({ends}), "
        f"{report.virtual_s:.0f} s in {cost}, faults: {fired}; trace {report.digest}"
    )


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in text.split(",")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
