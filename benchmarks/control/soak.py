"""Hours in minutes: ten times the events of a busy fleet, and whether the backend grows.

Ordinary is: workers probed every 10 s, one operation a second. Here 100 made-up workers are probed every second and ten
operations a second are submitted, run for four seconds, are watched by an event stream each, polled, and delivered; a
tenth is cancelled; workers register again, and the numbers for Prometheus are read.

A warm-up, a rest, ``SOAK_MINUTES`` (default 3) of that, a rest. Descriptors, threads and tasks belong to the load and
come and go with it, more of them where other work slows the machine: what must not grow is what is there at rest, when
nothing is under way and kept connections have ended. Memory is not given back, so its trend under load is judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from control.backend import Backend, backend
from control.crowd import Plan, crowd
from control.growth import trend
from control.http import Client
from control.load import training
from control.streams import Subscriber
from table import Row

__all__ = ["rows"]

PER_S, WORKERS, JOB_S = 10.0, 100, 4.0
LIMITS = {  # what is noise; measured with runs in which nothing grows
    "rss": ("trend of resident memory", "MB", 12.0),
    "fds": ("growth of descriptors at rest", "descriptors", 4.0),
    "threads": ("growth of threads at rest", "threads", 1.0),
    "tasks": ("growth of asyncio tasks at rest", "tasks", 4.0),
}
_ALIVE = ("pending", "assigned", "running", "cancelling")
_SETTLE_S = 40.0  # kept connections end after half a minute without use
_LOOK_S = 10.0
_DRAIN_S = 120.0


@dataclass
class Diary:
    """What was seen of the backend every second of the load, what at rest, and what was done to it."""

    seen: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LIMITS})
    rests: list[dict[str, float]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def growth(self, name: str) -> float:
        """Of memory: the trend under load. Of all else: the last rest less the first."""
        if name == "rss":
            return trend(self.seen[name])
        return self.rests[-1][name] - self.rests[0][name]


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
        answer = await client.ask("GET", f"/operations/{operation_id}")
        diary.done[answer.json()["status"] if answer.status == 200 else f"refused {answer.status}"] += 1
    except (OSError, TimeoutError) as error:
        diary.done[f"unanswered ({type(error).__name__})"] += 1
    finally:
        watcher.cancel()


async def _look(target: Backend) -> dict[str, float]:
    metrics = await asyncio.to_thread(target.metrics)
    process = target.process
    return {
        "rss": process.memory_info().rss / 2**20,
        "fds": process.num_fds(),
        "threads": process.num_threads(),
        "tasks": metrics["ktrdr_event_loop_tasks"],
    }


async def _watch(target: Backend, diary: Diary) -> None:
    while True:
        try:
            found = await _look(target)
        except OSError:  # a machine that is busy beyond use; the next second tells
            diary.done["scrapes unanswered"] += 1
        else:
            for name, value in found.items():
                diary.seen[name].append(value)
        if len(diary.seen["rss"]) % 60 == 1:
            newest = ", ".join(f"{name} {values[-1]:.0f}" for name, values in diary.seen.items())
            print(f"{newest}; {dict(diary.done)}", file=sys.stderr, flush=True)
        await asyncio.sleep(1.0)


async def _load(target: Backend, seconds: float, diary: Diary) -> None:
    watch = asyncio.create_task(_watch(target, diary))
    await _live(target, seconds, diary)
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


async def _alive(client: Client) -> int:
    """How many operations wait or run."""
    counts = (await client.ask("GET", "/queue")).json()["operations"]
    return sum(of.get(status, 0) for of in counts.values() for status in _ALIVE)


async def _rest(target: Backend, settle_s: float, look_s: float) -> dict[str, float]:
    """Medians of a while in which nothing is under way, after all work has ended and connections are closed."""
    client, deadline = Client(target.url), time.monotonic() + _DRAIN_S
    while await _alive(client):
        if time.monotonic() > deadline:
            raise RuntimeError("the backend has not come to rest")
        await asyncio.sleep(1.0)
    client.close()
    await asyncio.sleep(settle_s)
    looks, end = [await _look(target)], time.monotonic() + look_s
    while time.monotonic() < end:
        await asyncio.sleep(1.0)
        looks.append(await _look(target))
    found = {name: statistics.median(look[name] for look in looks) for name in LIMITS}
    print(f"at rest: {found}", file=sys.stderr, flush=True)
    return found


async def _whole(target: Backend, minutes: float, settle_s: float, look_s: float) -> Diary:
    await _load(target, 60 * min(minutes / 4, 3.0), warm := Diary())
    diary = Diary(rests=[await _rest(target, settle_s, look_s)])
    await _load(target, 60 * minutes, diary)
    diary.rests.append(await _rest(target, settle_s, look_s))
    diary.done["failed"] += warm.done["failed"]
    return diary


def measure(minutes: float, settle_s: float, look_s: float) -> tuple[Diary, float, float]:
    """The diary, CPU seconds of the backend and wall seconds."""
    plan = Plan("", "trainer", WORKERS, kind="training", job_s=JOB_S, again_s=30.0)
    with backend(KTRDR_HEALTH_INTERVAL_S="1") as target, crowd(plan, target.url) as workers:
        with target.wire() as wire:
            wire.ask("POST", "/data/samples")
        spent, begin = target.cpu_s(), time.perf_counter()
        diary = asyncio.run(_whole(target, minutes, settle_s, look_s))
        wall_s, cpu_s = time.perf_counter() - begin, target.cpu_s() - spent
        diary.done["probes"] = workers.counts()["probes"]
        return diary, cpu_s, wall_s


def rows(*, tiny: bool = False, minutes: float | None = None) -> list[Row]:
    """The table's rows."""
    minutes = minutes or (0.1 if tiny else float(os.environ.get("SOAK_MINUTES", "3")))
    diary, cpu_s, wall_s = measure(minutes, *((1.0, 0.0) if tiny else (_SETTLE_S, _LOOK_S)))
    did = ", ".join(f"{count:,} {what}" for what, count in sorted(diary.done.items()))
    found = [
        Row(
            key=f"control.soak_{name}",
            what=f"soak of {minutes:g} min at 10x: {what}",
            measured=diary.growth(name),
            unit=unit,
            target=limit,
            cpu_s=cpu_s,
            wall_s=wall_s,
            note=_note(diary, name),
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


def _note(diary: Diary, name: str) -> str:
    values, (first, last) = diary.seen[name], (diary.rests[0][name], diary.rests[-1][name])
    if not values:
        return "never seen under load"
    return (
        f"at rest {first:.0f}, then {last:.0f}; under load {min(values):.0f} to {max(values):.0f}, "
        f"trend {trend(values):+.1f}"
    )
