"""Hours in minutes: ten times the events of a busy fleet, and whether the backend grows.

Ordinary is: workers probed every 10 s, one operation a second. Here 100 made-up workers are probed every second and ten
operations a second are submitted, run for four seconds, are watched by an event stream each, polled, and delivered; a
tenth is cancelled; workers register again, and the numbers for Prometheus are read. Growth is the median of the last
third less that of the first third, after a quarter of the time for warming up. How long: ``SOAK_MINUTES``, default 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from control.backend import Backend, backend
from control.crowd import Plan, crowd
from control.http import Client
from control.load import training
from control.streams import Subscriber
from table import Row

__all__ = ["rows"]

PER_S, WORKERS, JOB_S = 10.0, 100, 4.0
LIMITS = {  # what is noise; measured with runs in which nothing grows
    "rss": ("resident memory", "MB", 12.0),
    "fds": ("open descriptors", "descriptors", 12.0),
    "threads": ("threads", "threads", 1.0),
    "tasks": ("asyncio tasks", "tasks", 15.0),
}


@dataclass
class Diary:
    """What was seen of the backend every second, and what was done to it."""

    seen: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LIMITS})
    done: Counter[str] = field(default_factory=Counter)

    def growth(self, name: str) -> float:
        """Median of the last third less median of the first third, after the first quarter."""
        values = self.seen[name][len(self.seen[name]) // 4 :]
        third = max(1, len(values) // 3)
        return statistics.median(values[-third:]) - statistics.median(values[:third])


async def _live(target: Backend, seconds: float, diary: Diary) -> None:
    client, end, tasks = Client(target.url), time.monotonic() + seconds, set[asyncio.Task[None]]()
    begin, number = time.monotonic(), 0
    while time.monotonic() < end:
        task = asyncio.create_task(_one(target.url, client, number, diary))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        await asyncio.sleep(max(0.0, begin + number / PER_S - time.monotonic()))
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    client.close()


async def _one(url: str, client: Client, number: int, diary: Diary) -> None:
    """An operation and those who watch it."""
    answer = await client.ask("POST", "/trainings/start", training())
    if answer.status != 202:
        diary.done[f"refused {answer.status}"] += 1
        return
    operation_id = answer.json()["operation_id"]
    diary.done["submitted"] += 1
    watcher = asyncio.create_task(Subscriber(url, operation_id).follow())
    try:
        for _ in range(3):
            await asyncio.sleep(1.0)
            await client.ask("GET", f"/operations/{operation_id}")
            diary.done["polls"] += 1
        if number % 10 == 0:
            await client.ask("POST", f"/operations/{operation_id}/cancel")
            diary.done["cancels"] += 1
        events = await asyncio.wait_for(watcher, 120)
        diary.done["events"] += events
        ended = (await client.ask("GET", f"/operations/{operation_id}")).json()["status"]
        diary.done[ended] += 1
    except (OSError, TimeoutError) as error:
        diary.done[f"unanswered ({type(error).__name__})"] += 1
    finally:
        watcher.cancel()


async def _watch(target: Backend, diary: Diary) -> None:
    while True:
        try:
            metrics = await asyncio.to_thread(target.metrics)
        except OSError:  # a machine that is busy beyond use; the next second tells
            diary.done["scrapes unanswered"] += 1
        else:
            process = target.process
            diary.seen["rss"].append(process.memory_info().rss / 2**20)
            diary.seen["fds"].append(process.num_fds())
            diary.seen["threads"].append(process.num_threads())
            diary.seen["tasks"].append(metrics["ktrdr_event_loop_tasks"])
        if len(diary.seen["rss"]) % 60 == 1:
            newest = ", ".join(f"{name} {values[-1]:.0f}" for name, values in diary.seen.items())
            print(f"{newest}; {dict(diary.done)}", file=sys.stderr, flush=True)
        await asyncio.sleep(1.0)


async def _both(target: Backend, seconds: float, diary: Diary) -> None:
    watch = asyncio.create_task(_watch(target, diary))
    await _live(target, seconds, diary)
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


def measure(minutes: float) -> tuple[Diary, float, float]:
    """The diary, CPU seconds of the backend and wall seconds."""
    plan = Plan("", "trainer", WORKERS, kind="training", job_s=JOB_S, again_s=30.0)
    diary = Diary()
    with backend(KTRDR_HEALTH_INTERVAL_S="1") as target, crowd(plan, target.url) as workers:
        with target.wire() as wire:
            wire.ask("POST", "/data/samples")
        spent, begin = target.cpu_s(), time.perf_counter()
        asyncio.run(_both(target, 60 * minutes, diary))
        wall_s, cpu_s = time.perf_counter() - begin, target.cpu_s() - spent
        diary.done["probes"] = workers.counts()["probes"]
        return diary, cpu_s, wall_s


def rows(*, tiny: bool = False, minutes: float | None = None) -> list[Row]:
    """The table's rows."""
    minutes = minutes or (0.1 if tiny else float(os.environ.get("SOAK_MINUTES", "3")))
    diary, cpu_s, wall_s = measure(minutes)
    did = ", ".join(f"{count:,} {what}" for what, count in sorted(diary.done.items()))
    found = [
        Row(
            key=f"control.soak_{name}",
            what=f"soak of {minutes:g} min at 10x: growth of {what}",
            measured=diary.growth(name),
            unit=unit,
            target=limit,
            cpu_s=cpu_s,
            wall_s=wall_s,
            note=f"from {_range(diary.seen[name])}",
        )
        for name, (what, unit, limit) in LIMITS.items()
    ]
    unended = diary.done["submitted"] - sum(diary.done[s] for s in ("completed", "failed", "cancelled"))
    found.append(
        Row(
            key="control.soak_failed",
            what=f"soak of {minutes:g} min at 10x: operations that failed",
            measured=diary.done["failed"],
            unit="operations",
            target=0.0,
            note=f"{did}; {unended} under way at the end",
        )
    )
    return found


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}, at last {values[-1]:.0f}"
