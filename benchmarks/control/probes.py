"""What it costs the backend to probe a fleet, and whether its event loop stays free meanwhile.

Made-up workers answer as real ones do, over real HTTP. The interval is the default, 10 s. CPU seconds are the
backend's own, per round; the lag is ``ktrdr_event_loop_lag_max_seconds``, as operators see it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from control.backend import Backend, backend
from control.crowd import Crowd, Plan, crowd
from control.load import training
from table import Row

__all__ = ["rows"]

INTERVAL_S = 10.0


@dataclass(frozen=True)
class Probed:
    """Of one round: the backend's CPU seconds; of all rounds: the largest lag, and how long they took."""

    cpu_s: float
    lag_ms: float
    wall_s: float


def measure(count: int, *, rounds: int, interval_s: float, busy: bool = False, late_s: float = 0.0) -> Probed:
    """Rounds over ``count`` workers, after two that are not counted; ``late_s``: how late they may be, all together."""
    plan = Plan("", "worker", count, kind="training")
    settings = {"KTRDR_HEALTH_INTERVAL_S": f"{interval_s:g}"}
    with backend(**settings) as measured, crowd(plan, measured.url) as workers:
        if busy:
            _occupy(measured, workers, count)
        _wait_for(workers, 2 * count, 10 * interval_s + late_s)
        seen, spent, begin = workers.counts()["probes"], measured.cpu_s(), time.perf_counter()
        time.sleep(rounds * interval_s)
        while late_s > 0 and workers.counts()["probes"] - seen < rounds * count:
            late_s -= interval_s
            time.sleep(interval_s)
        wall_s = time.perf_counter() - begin
        spent, probes = measured.cpu_s() - spent, workers.counts()["probes"] - seen
        if probes < 0.8 * rounds * count:
            raise RuntimeError(f"{probes} probes in {rounds} rounds over {count} workers")
        lag_ms = 1e3 * measured.metrics()["ktrdr_event_loop_lag_max_seconds"]
    return Probed(spent * count / probes, lag_ms, wall_s)


def _wait_for(workers: Crowd, probes: int, patience_s: float) -> None:
    """So many probes more; the first ones are part of the registrations."""
    limit, deadline = workers.counts()["probes"] + probes, time.monotonic() + patience_s
    while workers.counts()["probes"] < limit:
        if time.monotonic() > deadline:
            raise RuntimeError("the workers are not probed")
        time.sleep(0.2)


def _occupy(measured: Backend, workers: Crowd, count: int) -> None:
    """Give everybody something to do that does not end."""
    with measured.wire() as wire:
        wire.ask("POST", "/data/samples")
        for _ in range(count):
            wire.ask("POST", "/trainings/start", training())
    deadline = time.monotonic() + 120
    while workers.counts()["starts"] < count:
        if time.monotonic() > deadline:
            raise RuntimeError("not everybody got work")
        time.sleep(0.2)


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's rows."""
    cases = [(1_000, 0.3, False), (1_000, 0.3, True), (10_000, 3.0, False)]
    interval_s, rounds = INTERVAL_S, 6
    late_s = 0.0
    if tiny:  # which says whether it works, on whatever machine
        cases, interval_s, rounds, late_s = [(20, 0.3, True)], 0.3, 3, 60.0
    found = []
    for count, target, busy in cases:
        probed = measure(count, rounds=rounds, interval_s=interval_s, busy=busy, late_s=late_s)
        what, key = f"{count:,} {'busy' if busy else 'idle'} workers", f"{count}{'_busy' if busy else ''}"
        costs = {"cpu_s": probed.cpu_s, "wall_s": probed.wall_s / rounds}
        found += [
            Row(
                key=f"control.probes_{key}",
                what=f"{what}: a round of probes",
                measured=probed.cpu_s,
                unit="s CPU",
                target=target,
                note=f"{1e3 * probed.cpu_s / count:.2f} ms a probe; every {interval_s:g} s; CPU: the backend's",
                **costs,
            ),
            Row(
                key=f"control.lag_{key}",
                what=f"{what}: largest event loop lag",
                measured=probed.lag_ms,
                unit="ms",
                target=100.0,
                note=f"in {rounds} rounds, sampled 20 times a second",
                **costs,
            ),
        ]
    return found
