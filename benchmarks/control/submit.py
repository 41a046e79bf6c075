"""Submissions under load: how many per second become durable, how soon a worker has one, and what a kill -9 costs.

- per second: clients on kept-alive connections submit trainings as fast as they are answered; the one worker is busy, so
  that all of them queue. Every 202 is after the commit. Submissions per second of wall time, and of CPU time of the
  backend, which is what another load on the machine does not change.
- lost: the same clients go on while the backend is killed with SIGKILL and started again, twice. Then every id
  that was ever acknowledged is looked for in the ledger.
- accepted: submissions at a steady rate to a fleet with free workers, each from sending the POST until the worker's 202 has
  reached the backend, which the ledger keeps as ``started_at``. Both clocks are this machine's.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from bench_control import percentile
from control.backend import Backend, backend
from control.crowd import Plan, crowd
from control.http import Client
from control.load import training
from table import Row

__all__ = ["rows"]

CLIENTS = 16
_PAGE = 200


@dataclass
class Stream:
    """What the clients did: acknowledged ids, and requests that got no answer."""

    acknowledged: list[str] = field(default_factory=list)
    unanswered: int = 0


async def submit_for(url: str, seconds: float, clients: int, stream: Stream) -> None:
    """Submit as fast as answers come, for so long."""
    client, end = Client(url), time.perf_counter() + seconds
    body = training()

    async def one() -> None:
        while time.perf_counter() < end:
            try:
                answer = await client.ask("POST", "/trainings/start", body)
            except OSError:
                stream.unanswered += 1  # whether it was recorded is unknown; nobody was told that it was
                await asyncio.sleep(0.05)
            else:
                stream.acknowledged.append(answer.json()["operation_id"])

    await asyncio.gather(*(one() for _ in range(clients)))
    client.close()


async def killed_meanwhile(target: Backend, seconds: float, clients: int, stream: Stream, kills: int) -> None:
    """The same, with the backend killed and started again in between."""
    load = asyncio.create_task(submit_for(target.url, seconds, clients, stream))
    for _ in range(kills):
        await asyncio.sleep(seconds / (kills + 1) / 2)
        await asyncio.to_thread(target.kill)
        await asyncio.to_thread(target.start)
    await load


async def recorded(url: str) -> set[str]:
    """The id of every operation in the ledger, page by page."""
    client, found, cursor = Client(url), set[str](), ""
    while True:
        page = (await client.ask("GET", f"/operations?limit={_PAGE}{cursor}")).json()
        found |= {operation["operation_id"] for operation in page["operations"]}
        if page["next_cursor"] is None:
            client.close()
            return found
        cursor = f"&cursor={page['next_cursor']}"


@dataclass(frozen=True)
class Flood:
    """Submissions without an end: rates, and what a kill left."""

    per_wall_s: float
    per_cpu_s: float
    acknowledged: int
    lost: int
    unanswered: int
    seconds: float


def flood(seconds: float, kills: int) -> Flood:
    """Rate first, then the same with kills."""
    with backend() as target, crowd(Plan("", "trainer", 1, kind="training"), target.url):
        with target.wire() as wire:
            wire.ask("POST", "/data/samples")
            wire.ask(
                "POST", "/trainings/start", training()
            )  # parsed and remembered; it keeps the worker busy
        stream = Stream()
        spent, begin = target.cpu_s(), time.perf_counter()
        asyncio.run(submit_for(target.url, seconds, CLIENTS, stream))
        wall_s, cpu_s, count = time.perf_counter() - begin, target.cpu_s() - spent, len(stream.acknowledged)
        asyncio.run(killed_meanwhile(target, 2 * seconds, CLIENTS, stream, kills))
        lost = set(stream.acknowledged) - asyncio.run(recorded(target.url))
    return Flood(
        count / wall_s, count / cpu_s, len(stream.acknowledged), len(lost), stream.unanswered, wall_s
    )


@dataclass(frozen=True)
class Accepted:
    """Milliseconds from POST to acceptance, and CPU seconds of the backend for one operation."""

    ms: list[float]
    cpu_s: float
    wall_s: float


async def _steadily(url: str, count: int, per_s: float) -> list[tuple[str, float]]:
    """Ids with the moments at which their submissions were sent; at fixed moments, whatever the answers do."""
    client, body, sent = Client(url), training(), list[tuple[str, float]]()

    async def one(wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        moment = time.time()
        sent.append(((await client.ask("POST", "/trainings/start", body)).json()["operation_id"], moment))

    await asyncio.gather(*(one(number / per_s) for number in range(count)))
    client.close()
    return sent


async def _accepted_at(url: str, sent: list[tuple[str, float]]) -> list[float]:
    client, times = Client(url), []
    for operation_id, moment in sent:
        while True:
            operation = (await client.ask("GET", f"/operations/{operation_id}")).json()
            if operation["started_at"] is not None:
                break
            await asyncio.sleep(0.1)
        times.append(1e3 * (datetime.fromisoformat(operation["started_at"]).timestamp() - moment))
    client.close()
    return times


def acceptance(count: int, per_s: float, workers: int) -> Accepted:
    """Submissions to a fleet that is never full: a made-up job takes 0.2 s."""
    plan = Plan("", "trainer", workers, kind="training", job_s=0.2)
    with backend() as target, crowd(plan, target.url):
        with target.wire() as wire:
            wire.ask("POST", "/data/samples")
        asyncio.run(_steadily(target.url, min(count, 50), per_s))  # warm
        time.sleep(0.5)
        spent, begin = target.cpu_s(), time.perf_counter()
        sent = asyncio.run(_steadily(target.url, count, per_s))
        time.sleep(0.5)
        wall_s, cpu_s = time.perf_counter() - begin, target.cpu_s() - spent
        return Accepted(asyncio.run(_accepted_at(target.url, sent)), cpu_s / count, wall_s)


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's rows."""
    flooded = flood(1.0 if tiny else 10.0, 1 if tiny else 2)
    accepted = acceptance(5, 10.0, 3) if tiny else acceptance(1_000, 20.0, 20)
    found = [
        Row(
            key="control.submissions",
            what=f"durable submissions, {CLIENTS} clients",
            measured=flooded.per_wall_s,
            unit="/s",
            target=300.0,
            better="higher",
            cpu_s=1 / flooded.per_cpu_s,
            wall_s=flooded.seconds,
            note=f"{flooded.per_cpu_s:.0f} per CPU second of the backend; CPU: of one submission",
        ),
        Row(
            key="control.lost",
            what="acknowledged submissions lost by kill -9",
            measured=flooded.lost,
            unit="lost",
            target=0.0,
            note=f"of {flooded.acknowledged:,} acknowledged; {flooded.unanswered} had no answer",
        ),
    ]
    for name, quantile, target in (("p50", 0.5, 10.0), ("p99", 0.99, 60.0)):
        note = f"of {len(accepted.ms)}; median {percentile(accepted.ms, 0.5):.1f}; CPU: the backend's, from start to end"
        found.append(
            Row(
                key=f"control.submit_accepted_{name}",
                what=f"submit -> accepted, {name}",
                measured=percentile(accepted.ms, quantile),
                unit="ms",
                target=target,
                cpu_s=accepted.cpu_s,
                wall_s=accepted.wall_s,
                note=note,
            )
        )
    return found
