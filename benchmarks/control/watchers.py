"""Many who look at one running operation: 500 that poll it, 200 that hold an event stream, one of them without reading.

- pollers: each asks ``GET /operations/{id}`` once a second on its own connection. What counts is how often the worker was asked
  meanwhile, as the worker counts it.
- streams: the made-up job says something new whenever it is asked, with the time on it; the backend asks as often as it does for
  everybody, once a second. The lag of an event is how much later it came than the fastest any event came to any
  subscriber. It has a context of 100 kB, so that a subscriber who does not read fills what the kernel keeps for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench_control import percentile
from control.backend import Backend, backend
from control.crowd import Crowd, Plan, crowd
from control.http import Client
from control.load import training
from control.streams import Subscriber
from table import Row

__all__ = ["rows"]

_STALLED_BUFFER = 4_096
_CONTEXT_BYTES = 100_000


@contextlib.contextmanager
def running(context_bytes: int = 0) -> Iterator[tuple[Backend, Crowd, str]]:
    """A backend, its one worker, and the operation that runs there without end."""
    plan = Plan("", "trainer", 1, kind="training", context_bytes=context_bytes)
    with backend() as target, crowd(plan, target.url) as workers, target.wire() as wire:
        wire.ask("POST", "/data/samples")
        operation_id = wire.ask("POST", "/trainings/start", training()).body["operation_id"]
        wire.until(operation_id, "running")
        yield target, workers, operation_id


@dataclass(frozen=True)
class Polled:
    """Questions per second that reached the worker, and what a poll cost."""

    reads_per_s: float
    polls: int
    ms: list[float]
    cpu_s: float
    wall_s: float


async def _poll(url: str, operation_id: str, seconds: float, pollers: int) -> list[float]:
    client, end, ms = Client(url), time.perf_counter() + seconds, list[float]()

    async def one(offset_s: float) -> None:
        await asyncio.sleep(offset_s)
        while (begin := time.perf_counter()) < end:
            status = (await client.ask("GET", f"/operations/{operation_id}")).json()["status"]
            if status != "running":
                raise RuntimeError(f"{operation_id} is {status}")
            ms.append(1e3 * (time.perf_counter() - begin))
            await asyncio.sleep(max(0.0, begin + 1.0 - time.perf_counter()))

    await asyncio.gather(*(one(number / pollers) for number in range(pollers)))
    client.close()
    return ms


def poll(seconds: float, pollers: int) -> Polled:
    """``pollers`` that each ask once a second."""
    with running() as (target, workers, operation_id):
        asked, spent, begin = workers.counts()["reads"], target.cpu_s(), time.perf_counter()
        ms = asyncio.run(_poll(target.url, operation_id, seconds, pollers))
        wall_s, cpu_s = time.perf_counter() - begin, target.cpu_s() - spent
        asked = workers.counts()["reads"] - asked
    return Polled(asked / wall_s, len(ms), ms, cpu_s, wall_s)


@dataclass(frozen=True)
class Streamed:
    """Lags in milliseconds, resident memory of the backend at the beginning and at the end, and counts of events."""

    lags: list[float]
    grown_mb: float
    fewest: int
    stalled_bytes: int
    sent_bytes: int
    cpu_s: float
    wall_s: float


async def _stream(
    target: Backend, operation_id: str, seconds: float, count: int
) -> tuple[list[Subscriber], int, float]:
    stalled = await Subscriber(target.url, operation_id, buffer=_STALLED_BUFFER).connect()
    others = [Subscriber(target.url, operation_id, keep=True) for _ in range(count - 1)]
    tasks = [asyncio.create_task(other.follow()) for other in others]
    await asyncio.sleep(seconds / 6)
    before = target.process.memory_info().rss
    await asyncio.sleep(seconds * 5 / 6)
    grown_mb = (target.process.memory_info().rss - before) / 2**20
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    waiting = await _drained(stalled)
    stalled.close()
    return others, waiting, grown_mb


async def _drained(sock: socket.socket) -> int:
    """How much waits for a subscriber that read nothing until now."""
    size = 0
    with contextlib.suppress(TimeoutError):
        while content := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 16), 0.5):
            size += len(content)
    return size


def stream(seconds: float, count: int) -> Streamed:
    """``count`` subscribers, one of which does not read."""
    with running(_CONTEXT_BYTES) as (target, _, operation_id):
        spent, begin = target.cpu_s(), time.perf_counter()
        others, stalled_bytes, grown_mb = asyncio.run(_stream(target, operation_id, seconds, count))
        wall_s, cpu_s = time.perf_counter() - begin, target.cpu_s() - spent
    moments = [
        event.at - event.operation["progress"]["items_done"] / 1e3
        for other in others
        for event in other.events
        if event.operation["progress"]["items_done"]
    ]
    fastest = min(moments)
    counts = [len(other.events) for other in others]
    return Streamed(
        lags=[1e3 * (moment - fastest) for moment in moments],
        grown_mb=grown_mb,
        fewest=min(counts),
        stalled_bytes=stalled_bytes,
        sent_bytes=max(counts) * _CONTEXT_BYTES,
        cpu_s=cpu_s,
        wall_s=wall_s,
    )


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's rows."""
    polled = poll(1.5, 5) if tiny else poll(30.0, 500)
    streamed = stream(3.0, 4) if tiny else stream(60.0, 200)
    subscribers, pollers = (4, 5) if tiny else (200, 500)
    worst = max(streamed.lags)
    return [
        Row(
            key="control.pollers",
            what=f"{pollers} pollers of one operation: questions to its worker",
            measured=polled.reads_per_s,
            unit="/s",
            target=1.0,
            cpu_s=polled.cpu_s,
            wall_s=polled.wall_s,
            note=f"{polled.polls:,} polls, {1e3 * polled.cpu_s / polled.polls:.2f} ms CPU each; "
            f"median {percentile(polled.ms, 0.5):.1f} ms, p99 {percentile(polled.ms, 0.99):.0f} ms",
        ),
        Row(
            key="control.streams_lag",
            what=f"{subscribers} event streams, one stalled: largest lag of the others",
            measured=worst,
            unit="ms",
            target=1000.0,
            strict=True,
            cpu_s=streamed.cpu_s,
            wall_s=streamed.wall_s,
            note=f"of {len(streamed.lags):,} events; median {percentile(streamed.lags, 0.5):.0f} ms, "
            f"p99 {percentile(streamed.lags, 0.99):.0f} ms; nobody got fewer than {streamed.fewest}",
        ),
        Row(
            key="control.streams_memory",
            what=f"{subscribers} event streams, one stalled: growth of the backend",
            measured=streamed.grown_mb,
            unit="MB",
            target=8.0,
            note=f"for the stalled one {streamed.stalled_bytes / 1e3:.0f} kB wait in buffers; "
            f"the others were sent {streamed.sent_bytes / 1e3:.0f} kB each",
        ),
    ]
