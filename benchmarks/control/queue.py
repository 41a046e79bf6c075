"""More work than workers: ten trainings and twenty backtests at once, on the fleet that ``ktrdr up`` starts by default.

Real workers, real jobs on bundled data. All must complete, and operations of one type must start in the order in which they
were submitted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import psutil

from bench_control import Wire, fleet
from control.load import training
from table import Row

__all__ = ["out_of_order", "rows"]

TRAININGS, BACKTESTS = 10, 20


def out_of_order(operations: Sequence[Any]) -> int:
    """How many of the operations, in the order of their submission, started before one that was submitted earlier."""
    late, latest = 0, ""
    for operation in operations:
        late += operation["started_at"] < latest
        latest = max(latest, operation["started_at"])
    return late


def measure(trainings: int, backtests: int) -> tuple[list[Any], list[Any], float, float]:
    """The ended trainings and backtests as submitted, CPU seconds of backend and workers, wall seconds."""
    with fleet() as url, contextlib.closing(Wire(url)) as wire:
        wire.ask("POST", "/data/samples")
        first = wire.ask("POST", "/trainings/start", training(2)).body["operation_id"]
        wire.until(first, "completed")
        model = wire.ask("GET", "/models").body["items"][0]["model_id"]
        spent, begin = _cpu_s(), time.perf_counter()
        names = [
            wire.ask("POST", "/trainings/start", training(20)).body["operation_id"] for _ in range(trainings)
        ]
        tests = [
            wire.ask("POST", "/backtests/start", {"model_id": model}).body["operation_id"]
            for _ in range(backtests)
        ]
        ended = {name: wire.until(name, "completed", "failed", "cancelled") for name in [*names, *tests]}
        wall_s = time.perf_counter() - begin
        return [ended[name] for name in names], [ended[name] for name in tests], _cpu_s() - spent, wall_s


def _cpu_s() -> float:
    """CPU seconds of the fleet so far, with its jobs, ended ones too."""
    total = 0.0
    for part in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = part.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's rows."""
    trainings, backtests = (1, 2) if tiny else (TRAININGS, BACKTESTS)
    trained, tested, cpu_s, wall_s = measure(trainings, backtests)
    completed = sum(operation["status"] == "completed" for operation in [*trained, *tested])
    what = f"{trainings} trainings and {backtests} backtests at once"
    return [
        Row(
            key="control.queue_completed",
            what=f"{what}: completed",
            measured=completed,
            unit="operations",
            target=trainings + backtests,
            better="higher",
            cpu_s=cpu_s,
            wall_s=wall_s,
            note="CPU: the whole fleet with its jobs",
        ),
        Row(
            key="control.queue_order",
            what=f"{what}: started before an earlier one",
            measured=out_of_order(trained) + out_of_order(tested),
            unit="operations",
            target=0.0,
            cpu_s=cpu_s,
            wall_s=wall_s,
        ),
    ]
