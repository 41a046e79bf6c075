"""Small job bodies for tests of the worker: they run in real child processes and do what their name says.

The strategy text of the specification is their instruction, so one specification type serves all.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from ktrdr.errors import TooFewBars
from ktrdr.jobs.environment import Job, JobEnvironment, JobResult
from ktrdr.operations.progress import Metric, Progress
from ktrdr.protocol.specs import BacktestSpec, JobSpec

__all__ = ["perform", "spec"]


def spec(instruction: str, *, model: str = "0" * 64) -> BacktestSpec:
    """A specification that carries an instruction for :func:`perform`."""
    return BacktestSpec(
        strategy_name="test", strategy=instruction, symbol="TEST", timeframe="1d", datasets=[], model=model
    )


def perform(spec: JobSpec, env: JobEnvironment) -> Job:  # noqa: PLR0912 (one verb, one branch)
    """``count N``, ``hold [N]`` (after N metrics), ``stubborn``, ``family FILE``, ``orphan FILE``, ``fail``, ``crash``, ``kill``, ``segfault``, ``exit N``,
    ``memory``, ``fetch DIGEST``, ``busy SECONDS``, ``modules``, ``missing``."""
    verb, _, rest = spec.strategy.partition(" ")
    print(f"instruction: {spec.strategy}")  # noqa: T201 (into the log)
    logging.getLogger("test").info("logged: %s", verb)
    yield Progress(0, 10, "started", {"pid": os.getpid()})
    match verb:
        case "count":
            for i in range(int(rest)):
                yield Progress(i + 1, int(rest), f"item {i + 1}", {"current_bar": i + 1})
                yield Metric({"item": i})
        case "hold":
            for i in range(int(rest or 0)):
                yield Metric({"item": i})
            yield from _hold(env)
        case "stubborn":
            time.sleep(3600)
        case "family" | "orphan":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            Path(rest).write_text(f"{os.getpid()} {child.pid}")
            if verb == "family":
                time.sleep(3600)
            child.returncode = 0  # left behind on purpose
        case "fail":
            raise TooFewBars("There are 3 bars; the warm-up needs 14.")
        case "crash":
            raise ZeroDivisionError("a bug")
        case "kill":
            os.kill(os.getpid(), 9)
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(int(rest))
        case "memory":
            raise MemoryError("cannot allocate")
        case "fetch":
            content = env.artifacts.read(rest)
            return JobResult({"length": len(content)}, {"result": env.artifacts.put(content[::-1])})
        case "busy":
            return (yield from _busy(float(rest)))
        case "modules":
            return JobResult({"torch": "torch" in sys.modules, "cwd": os.getcwd()})
        case "missing":
            return JobResult({}, {"result": "f" * 64})
    result = env.artifacts.put(f"result of {spec.strategy}".encode())
    return JobResult({"total_return": float("nan"), "items": 7}, {"result": result})


def _hold(env: JobEnvironment) -> Job:
    try:
        while True:
            time.sleep(0.005)
            yield Progress(5, 10, "holding")
    finally:
        (env.scratch / "closed").touch()
        print("closed cleanly")  # noqa: T201


def _busy(seconds: float) -> Job:
    """CPU work that yields every 5 ms or so, as the simulator does; the summary has the CPU time of the work alone."""
    cpu_s, rounds, started = 0.0, 0, time.perf_counter()
    while cpu_s < seconds:
        before = time.process_time()
        sum(i * i for i in range(130_000))
        cpu_s += time.process_time() - before
        rounds += 1
        yield Progress(int(1000 * cpu_s), int(1000 * seconds), "working", {"current_bar": rounds})
        if rounds % 100 == 0:
            yield Metric({"current_bar": rounds})
    return JobResult({"rounds": rounds, "cpu_s": cpu_s, "wall_s": time.perf_counter() - started})
