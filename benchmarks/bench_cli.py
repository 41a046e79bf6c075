"""What ``ktrdr --help`` costs beside a bare interpreter: CPU seconds of the whole process, user and system.

Run: ``python benchmarks/bench_cli.py``. Both are started with the same interpreter flags, one after the other in
pairs, so that a busy spell of the machine falls on both; the figure is the ratio of the medians. Goal: at most 10.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from table import Row, render

PAIRS = 21
BARE = (sys.executable, "-c", "pass")
HELP = (sys.executable, "-m", "ktrdr", "--help")


@dataclass(frozen=True)
class Comparison:
    """Medians in CPU seconds."""

    bare_s: float
    help_s: float

    @property
    def ratio(self) -> float:
        return self.help_s / self.bare_s


def child_cpu_s(command: Sequence[str]) -> float:
    """CPU seconds of one run of ``command``, by the kernel's account of that child."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"'{' '.join(command)}' ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def measure(pairs: int = PAIRS) -> Comparison:
    """Medians over ``pairs`` interleaved pairs, after one pair that warms the disk cache and writes bytecode."""
    timings = [(child_cpu_s(BARE), child_cpu_s(HELP)) for _ in range(pairs + 1)][1:]
    bare, helped = zip(*timings, strict=True)
    return Comparison(statistics.median(bare), statistics.median(helped))


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's row."""
    found = measure(2 if tiny else PAIRS)
    return [
        Row(
            key="cli.help_ratio",
            what="ktrdr --help against a bare interpreter",
            measured=found.ratio,
            unit="x",
            target=10.0,
            cpu_s=found.help_s,
            note=f"{found.help_s * 1e3:.0f} ms CPU against {found.bare_s * 1e3:.0f} ms",
        )
    ]


if __name__ == "__main__":
    print(render(rows(), {}))
