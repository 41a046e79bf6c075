"""``python -m simulation --seeds 1,2,3``: a line per seed; ends 1 at a broken law, 3 if a fault never occurred."""

# ruff: noqa: T201 - a command speaks by printing

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from simulation.plan import FAULTS, SITUATIONS, Size
from simulation.world import Report, simulate

_DEFAULT_SEEDS = "1,2,6"  # together they bring about every fault and situation


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("--seeds", default=_DEFAULT_SEEDS, help="comma-separated numbers, or FIRST-LAST")
    parser.add_argument("--workers", type=int, default=Size().workers)
    parser.add_argument("--operations", type=int, default=Size().operations)
    parser.add_argument("--chaos-s", type=float, default=Size().chaos_s, help="virtual seconds of faults")
    parser.add_argument("--stop", action="store_true", help="end at the first seed that breaks a law")
    parser.add_argument(
        "--demand-all", action="store_true", help="fail if a fault or situation never occurred"
    )
    chosen = parser.parse_args(arguments)
    size = Size(workers=chosen.workers, operations=chosen.operations, chaos_s=chosen.chaos_s)
    faults: Counter[str] = Counter()
    situations: Counter[str] = Counter()
    code = 0
    for seed in _seeds(chosen.seeds):
        began = time.process_time()
        report = _run(seed, size)
        print(_line(report, time.process_time() - began), flush=True)
        faults += report.faults
        situations += report.situations
        if report.violation is not None:
            code = 1
            if chosen.stop:
                print(f"  BROKEN {report.violation}")
                break
            _tell(report, seed, size)
    never = [name for name in FAULTS if not faults[name]] + [n for n in SITUATIONS if not situations[n]]
    if never and (chosen.demand_all or chosen.seeds == _DEFAULT_SEEDS):
        print(f"never occurred, so nothing was proved about it: {', '.join(never)}")
        code = code or 3
    return code


def _run(seed: int, size: Size) -> Report:
    with tempfile.TemporaryDirectory() as home:
        return simulate(seed, Path(home), size)


def _tell(report: Report, seed: int, size: Size) -> None:
    """The story of the operation that it befell, in the smallest of some smaller runs in which a law breaks, too."""
    print(f"  BROKEN {report.violation}", flush=True)
    shown = report
    for share in (16, 8, 4, 2):
        smaller = _run(seed, replace(size, operations=max(size.operations // share, 1)))
        if smaller.violation is not None:
            shown = smaller
            print(f"  with --operations {size.operations // share}: BROKEN {smaller.violation}")
            break
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
