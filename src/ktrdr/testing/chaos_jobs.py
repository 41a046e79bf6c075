"""Job bodies for tests that break things; the strategy text of the specification is their instruction.

They run in real child processes of workers that are told ``job="ktrdr.testing.chaos_jobs:perform"``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ktrdr.jobs.environment import Job, JobEnvironment, JobResult
from ktrdr.operations.progress import Metric, Progress
from ktrdr.protocol.specs import JobSpec

__all__ = ["perform"]

_FAR_AHEAD = (
    150 << 20
)  # bytes of a log with which a flood waits for the worker, for ever if that does nothing about it


def perform(spec: JobSpec, env: JobEnvironment) -> Job:
    """``poison FIELD``, ``shout BYTES``, ``boast BYTES``, ``mutter``, ``late``, ``flood MEGABYTES``, ``fetch DIGEST``, ``deaf SECONDS``, ``hog MEGABYTES WHEN``,
    ``climb STEPS PAUSE [ENOUGH]``, ``trace FILE SECONDS``."""
    verb, _, rest = spec.strategy.partition(" ")
    run = env.scratch.parent.name  # operation and attempt
    yield Progress(1, 4, "started", {"run": run})
    match verb:
        case "poison":
            return _poison(rest, env)
        case "shout":
            raise ValueError("x" * int(rest))
        case "boast":
            return JobResult({"x": "y" * int(rest)}, {})
        case "mutter":
            yield Progress(2, 4, "half \ud800", {"file": "\udfff"})
            yield Metric({"file": "\udfff"})
        case "fetch":
            return JobResult({}, {"result": env.artifacts.put(env.artifacts.read(rest)[::-1])})
        case "deaf":
            time.sleep(float(rest))
        case "flood":
            yield from _flood(int(rest))
        case "hog":
            megabytes, when = rest.split()
            yield from _hog(int(megabytes), Path(when))
        case "late":
            yield from _steps(2, 5, 4)
        case "climb":
            steps, pause_s, *enough = rest.split()
            begin = int(steps) // 4  # where "started" is
            yield from _steps(begin, int(steps), int(steps), float(pause_s), *map(Path, enough))
        case "trace":
            file, seconds = rest.split()
            yield from _trace(Path(file), float(seconds), run)
    return JobResult({"run": run}, {"result": env.artifacts.put(f"result of {run}".encode())})


def _poison(field: str, env: JobEnvironment) -> JobResult:
    """Results that are no UTF-8, as a file name of another machine may bring them."""
    half = "\ud800"
    if field == "error":
        raise ValueError(half)
    if field == "digest":
        return JobResult({}, {"result": "no digest"})
    if field == "deep":
        deep: list[Any] = []
        for _ in range(400):
            deep = [deep]
        return JobResult({"x": deep}, {})
    return JobResult({"x": half}, {"result": env.artifacts.put(b"result")})


def _steps(
    first: int, end: int, total: int, pause_s: float = 0.0, enough: Path | None = None
) -> Generator[Progress, None, None]:
    """One step after the other, without a pause once there is a file ``enough``."""
    for done in range(first, end):
        if enough is None or not enough.exists():
            time.sleep(pause_s)
        yield Progress(done, total, f"step {done}", {"step": done})


def _flood(megabytes: int) -> Generator[Progress, None, None]:
    """Print so much, as fast as the worker makes room for it."""
    for number in range(megabytes):
        while os.fstat(1).st_blocks * 512 > _FAR_AHEAD:  # however late the worker looks at the log
            time.sleep(0.005)
        os.write(1, b"%06d " % number + b"x" * ((1 << 20) - 8) + b"\n")
        time.sleep(0.005)
        yield Progress(number, megabytes, "flooding", {})


def _hog(megabytes: int, when: Path) -> Generator[Progress, None, None]:
    """Use so much memory, little by little, from the moment on at which there is this file."""
    held: list[bytes] = []
    while not when.exists():
        time.sleep(0.005)
        yield Progress(1, megabytes, "about to hog", {})
    while len(held) < megabytes:
        held.append(b"x" * (1 << 20))
        yield Progress(len(held), megabytes, "hogging", {})


def _trace(file: Path, seconds: float, run: str) -> Generator[Progress, None, None]:
    """Write down that this run began and that it ended; it ends sooner once there is a file ``FILE.enough``."""
    _note(file, f"begin {run}")
    end, enough = time.monotonic() + seconds, file.with_name(f"{file.name}.enough")
    while time.monotonic() < end and not enough.exists():
        time.sleep(0.005)
        yield Progress(2, 4, "on the way", {"run": run})
    _note(file, f"end {run}")


def _note(file: Path, line: str) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)
