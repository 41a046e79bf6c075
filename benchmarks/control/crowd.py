"""Made-up workers for a benchmark: real HTTP servers in processes of their own, a few thousand workers in each."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from control.fakes import Plan

_EACH = 2_500  # workers in one process; twice as many descriptors

__all__ = ["Crowd", "Plan", "crowd"]


class Crowd:
    """The running processes."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def counts(self) -> Counter[str]:
        """What all workers together have seen: probes, starts, reads, deliveries, connections, ..."""
        total: Counter[str] = Counter()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("?\n")
            process.stdin.flush()
            total += Counter(json.loads(_line(process)))
        return total


@contextlib.contextmanager
def crowd(plan: Plan, backend: str) -> Iterator[Crowd]:
    """Start ``plan.count`` workers and wait until all are registered at ``backend``; they end with the block."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for number, first in enumerate(range(0, plan.count, _EACH)):
            part = replace(
                plan,
                backend=backend,
                prefix=f"{plan.prefix}{number}",
                host=f"127.77.{number}.1",
                count=min(_EACH, plan.count - first),
            )
            command = [sys.executable, "-m", "control.fakes", json.dumps(asdict(part))]
            folder = Path(__file__).resolve().parents[1]
            processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
                )
            )
        for process in processes:
            if _line(process).strip() != "ready":
                raise RuntimeError("the made-up workers did not come up")
        yield Crowd(processes)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()
