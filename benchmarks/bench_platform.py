"""What the platform costs a job of ten seconds: a real worker process, a real job process, progress polled once a second.

Run: ``python benchmarks/bench_platform.py``.

- overhead: CPU seconds of the worker, its nursery and the job's process beyond those of the job's own statements, as
  a share of the latter: fork, progress bridge, metrics, cancel checks, HTTP, files, delivery.
- start to delivery: wall time from sending the start request until the result has been reported, less the wall time
  from the job's first statement to its last.

The backend is a stand-in that answers at once, so that only the worker's side is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import psutil

from ktrdr.testing.fake_backend import FakeBackend
from ktrdr.testing.worker_jobs import spec
from table import Row

PROGRAM = """
from ktrdr.workers.kinds import run_worker
run_worker("backtesting", port=0, job="ktrdr.testing.worker_jobs:perform")
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One job: CPU seconds of all processes, of the job's statements, and seconds of wall time around them."""

    all_cpu_s: float
    own_cpu_s: float
    around_s: float

    @property
    def overhead(self) -> float:
        """Percent."""
        return 100 * (self.all_cpu_s / self.own_cpu_s - 1)


@contextmanager
def worker(backend: FakeBackend, home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A worker process; its URL and its process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "WORKER_"))}
    settings = {"KTRDR_HOME": str(home), "KTRDR_API_URL": backend.url, "KTRDR_LOG_LEVEL": "WARNING"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=kept | settings)
    try:
        backend.wait_for(lambda: backend.registrations)
        yield backend.registrations[-1]["endpoint_url"], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process, its living descendants, and the descendants that have ended."""
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        times = member.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def one_job(backend: FakeBackend, url: str, process: psutil.Process, seconds: float, name: str) -> Cost:
    """Start a job, ask for its progress once a second, and wait for its result."""
    before, started, known = cpu_of(process), time.perf_counter(), len(backend.deliveries)
    body = json.dumps({"task_id": name, "spec": spec(f"busy {seconds}").model_dump()}).encode()
    urlopen(Request(url + "/backtests/start", body, {"content-type": "application/json"})).close()
    while len(backend.deliveries) == known:
        try:
            backend.wait_for(lambda: len(backend.deliveries) > known, 1.0)
        except TimeoutError:
            urlopen(f"{url}/api/v1/operations/{name}").close()
    ended = time.perf_counter()
    time.sleep(0.2)  # the worker tidies up; that is part of the cost
    summary = backend.deliveries[-1]["summary"]
    return Cost(cpu_of(process) - before, summary["cpu_s"], ended - started - summary["wall_s"])


def measure(seconds: float, jobs: int) -> list[Cost]:
    """Costs of some jobs, after one that warms up."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeBackend() as backend,
        worker(backend, Path(folder)) as (url, process),
    ):
        one_job(backend, url, process, 0.05, "warm")
        return [one_job(backend, url, process, seconds, f"job{i}") for i in range(jobs)]


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's rows."""
    costs = measure(0.2 if tiny else 10.0, 1 if tiny else 3)
    cpu_s = statistics.median(cost.all_cpu_s for cost in costs)
    around_s = statistics.median(cost.around_s for cost in costs)
    return [
        Row(
            key="platform.overhead",
            what="platform overhead on a 10 s job",
            measured=statistics.median(cost.overhead for cost in costs),
            unit="%",
            target=1.0,
            strict=True,
            cpu_s=cpu_s,
            note=f"CPU of worker, nursery and job beyond the job's own; start to delivery {1e3 * around_s:.0f} ms more "
            "wall time than the job",
        )
    ]


if __name__ == "__main__":
    for row in rows():
        print(f"{row.what}: {row.measured:.2f} {row.unit}; {row.note}")
