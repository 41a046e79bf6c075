"""The ledger with a million operations, in SQLite and in PostgreSQL: claims, pages, single rows, counts, submissions.

Run: ``python benchmarks/bench_ledger.py [--operations N] [--on sqlite,postgresql]``. The store is asked directly, without
HTTP, through its public methods, one call after the other; only submissions come from 64 callers at once. The
PostgreSQL server is a throw-away one on this machine with its durable defaults (``fsync`` on) and is left out where
PostgreSQL is not installed. CPU and wall seconds are of one call on average; CPU is that of this process and of the
server's processes together.

- claim: the next pending operation becomes an assigned one, durably: read the queue, then claim.
- flush: no call of the ledger, but what the disk needs meanwhile to keep a page.
- page: 50 operations, newest first; in turn the first page, one far back, one of a status, one of a status and type.
- get: one operation by its id, chosen at random among all.
- retention: a step of 100 operations that are deleted, and one of 100 stories that become a line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from ktrdr.operations.events import Assigned
from ktrdr.operations.model import NewOperation, OperationStatus, OperationType
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.store import Claim, OperationQuery
from ledger_rows import NOW, Content, fill
from support.postgres import binaries, running_postgres
from table import Row, render

OPERATIONS = 1_000_000
DATABASES = ("sqlite", "postgresql")
_CALLERS, _WARM = 64, 20
_LATER = NOW + timedelta(minutes=1)
_LEASE = timedelta(minutes=1)
_OLD, _STEP = NOW - timedelta(days=85), 100


@dataclass
class Times:
    """Milliseconds of each call, and the CPU seconds of all of them together."""

    ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def p(self, quantile: float) -> float:
        """The smallest time that at least ``quantile`` of the calls do not exceed."""
        ordered = sorted(self.ms)
        return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]


@dataclass(frozen=True)
class Ledger:
    """A filled ledger and what is known of it."""

    name: str
    store: SqlStore
    content: Content
    cpu: Callable[[], float]
    size: Callable[[], int]
    filled_s: float


@contextlib.contextmanager
def sqlite_ledger(count: int) -> Iterator[Ledger]:
    """In a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        yield from _filled("SQLite", path, count, _own_cpu, lambda: path.stat().st_size)


@contextlib.contextmanager
def postgresql_ledger(count: int) -> Iterator[Ledger]:
    """In a server of its own that flushes to the disk."""
    bin_folder = binaries()
    if bin_folder is None:
        raise RuntimeError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with running_postgres(bin_folder, durable=True) as server:
        database = server.database()

        def cpu() -> float:
            postmaster = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
            ended = sum(postmaster.cpu_times()[2:4])
            alive = 0.0
            for process in postmaster.children():
                with contextlib.suppress(psutil.NoSuchProcess):  # the server ends some as it likes
                    alive += sum(process.cpu_times()[:2])
            return _own_cpu() + ended + alive

        def size() -> int:
            found = server.execute(database, "SELECT pg_database_size(current_database())")[0][0]
            return int(str(found))

        yield from _filled("PostgreSQL", server.url(database), count, cpu, size)


def _own_cpu() -> float:
    return time.process_time()


def _filled(
    name: str, where: str | Path, count: int, cpu: Callable[[], float], size: Callable[[], int]
) -> Iterator[Ledger]:
    store = SqlStore(where)
    try:
        begin = time.perf_counter()
        content = fill(store._ledger.writer, count)
        yield Ledger(name, store, content, cpu, size, time.perf_counter() - begin)
    finally:
        asyncio.run(store.close())


async def timed(calls: Iterator[Awaitable[object]], cpu: Callable[[], float], warm: int) -> Times:
    """The time of each call, one after the other; the first ``warm`` do not count: statements are compiled, and
    PostgreSQL plans a prepared statement anew the first times."""
    times, spent = Times(), cpu()
    for number, call in enumerate(calls):
        if number == warm:
            times, spent = Times(), cpu()
        begin = time.perf_counter()
        await call
        times.ms.append((time.perf_counter() - begin) * 1e3)
    times.cpu_s = (cpu() - spent) / len(times.ms)
    return times


async def measure(ledger: Ledger, calls: int) -> dict[str, Times]:
    """Times by name. What changes the ledger comes last."""
    store, rng = ledger.store, random.Random(1)
    ids = [i for of in ledger.content.ids.values() for i in of]
    far = (await store.page(OperationQuery(limit=50))).next_cursor
    for _ in range(20):
        far = (await store.page(OperationQuery(limit=1000, cursor=far))).next_cursor or far
    queries = [
        OperationQuery(),
        OperationQuery(cursor=far),
        OperationQuery(statuses=(OperationStatus.FAILED,)),
        OperationQuery(statuses=(OperationStatus.CANCELLED,), operation_type=OperationType.TRAINING),
        OperationQuery(statuses=(OperationStatus.PENDING,)),
        OperationQuery(operation_type=OperationType.TRAINING),
    ]
    few, steps = max(6, calls // 2), max(6, calls // 50)
    warm = min(_WARM, few // 2)
    waiting = ledger.content.ids[OperationStatus.PENDING]
    return {
        "get": await timed((store.get(rng.choice(ids)) for _ in range(calls)), ledger.cpu, warm),
        "page": await timed((store.page(queries[n % len(queries)]) for n in range(few)), ledger.cpu, warm),
        "counts": await timed((store.counts() for _ in range(few)), ledger.cpu, warm),
        "queue": await timed(
            (store.queue_position(rng.choice(waiting)) for _ in range(few)), ledger.cpu, warm
        ),
        "flush": flushes(few),
        "claim": await timed((_claim(store, n) for n in range(few)), ledger.cpu, warm),
        "submit": await timed((_submit(store, n) for n in range(few)), ledger.cpu, warm),
        "expire": await timed((store.expire(_OLD, _STEP) for _ in range(steps)), ledger.cpu, 3),
        "compact": await timed((store.compact(NOW, _STEP) for _ in range(steps)), ledger.cpu, 3),
    }


def flushes(count: int) -> Times:
    """What the disk takes to keep 8 kB, by itself: no commit is faster, and its slowest are a claim's slowest."""
    times, spent = Times(), time.process_time()
    with tempfile.TemporaryFile() as file:
        for _ in range(count):
            begin = time.perf_counter()
            os.write(file.fileno(), bytes(8192))
            os.fsync(file.fileno())
            times.ms.append((time.perf_counter() - begin) * 1e3)
    times.cpu_s = (time.process_time() - spent) / count
    return times


async def _claim(store: SqlStore, number: int) -> None:
    operation = (await store.pending(_LATER, 1))[0]
    worker = Assigned(f"worker-{number}", "instance-1", _LATER + _LEASE)
    [transition] = await store.claim([Claim(operation.operation_id, worker)], _LATER)
    if transition is None:
        raise RuntimeError(f"{operation.operation_id} was not to be had")


async def _submit(store: SqlStore, number: int) -> None:
    spec = b'{"number":%d}' % (number // 10)
    new = NewOperation(
        operation_id=f"op_new_{number}",
        operation_type=OperationType.BACKTESTING,
        spec=spec,
        idempotency_key=f"new-{number}",
    )
    await store.submit(new, _LATER)


async def submissions(ledger: Ledger, count: int) -> tuple[float, float, int]:
    """Submissions per second by many callers at once, CPU seconds of one, and how many were lost."""
    numbers = iter(range(1_000_000, 1_000_000 + count))

    async def caller() -> None:
        for number in numbers:
            await _submit(ledger.store, number)

    before = sum((await ledger.store.counts()).values())
    begin, spent = time.perf_counter(), ledger.cpu()
    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    took, cpu_s = time.perf_counter() - begin, ledger.cpu() - spent
    lost = before + count - sum((await ledger.store.counts()).values())
    return count / took, cpu_s / count, lost


_TARGETS = {"get": 5.0, "page": 20.0, "claim": 5.0}
_WORDS = {
    "get": "get an operation",
    "page": "list page of 50",
    "counts": "counts per type and status",
    "queue": "queue position",
    "flush": "a flush of 8 kB to the same disk, for comparison",
    "claim": "claim the next operation",
    "submit": "submit one, alone",
    "expire": "delete 100 old ones",
    "compact": "compact 100 stories",
}


def rows_of(ledger: Ledger, calls: int, submitted: int) -> list[Row]:
    """The table's rows for one database."""

    async def all_of_it() -> tuple[dict[str, Times], tuple[float, float, int]]:
        return await measure(ledger, calls), await submissions(ledger, submitted)

    times, (rate, cpu_s, lost) = asyncio.run(all_of_it())
    count, key = sum(ledger.content.counts.values()), ledger.name.lower()
    found = [
        Row(
            key=f"ledger.{key}.{name}",
            what=f"{ledger.name}, {count:,} operations: {_WORDS[name]}, p99",
            measured=of.p(0.99),
            unit="ms",
            target=_TARGETS.get(name),
            cpu_s=of.cpu_s,
            wall_s=statistics.fmean(of.ms) / 1e3,
            note=f"p50 {statistics.median(of.ms):.2f} ms of {len(of.ms)}",
        )
        for name, of in times.items()
    ]
    found.append(
        Row(
            key=f"ledger.{key}.submissions",
            what=f"{ledger.name}, {count:,} operations: durable submissions",
            measured=rate,
            unit="/s",
            target=300.0,
            better="higher",
            cpu_s=cpu_s,
            wall_s=1 / rate,
            note=f"{_CALLERS} callers, {lost} of {submitted:,} lost; {ledger.size() / 1e6:,.0f} MB, filled in "
            f"{ledger.filled_s:.0f} s",
        )
    )
    return found


def rows(
    *, tiny: bool = False, operations: int = OPERATIONS, databases: tuple[str, ...] = DATABASES
) -> list[Row]:
    """The table's rows."""
    count, calls, submitted = (2_000, 12, 60) if tiny else (operations, 2_000, 3_000)
    opened = {"sqlite": sqlite_ledger, "postgresql": postgresql_ledger}
    found: list[Row] = []
    for name in databases:
        if name == "postgresql" and binaries() is None:
            print("PostgreSQL is not installed: left out", file=sys.stderr)
            continue
        with opened[name](count) as ledger:
            found += rows_of(ledger, calls, submitted)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", type=int, default=OPERATIONS, metavar="N")
    parser.add_argument(
        "--on", default=",".join(DATABASES), metavar="NAMES", help="sqlite, postgresql or both"
    )
    options = parser.parse_args()
    databases = tuple(options.on.split(","))
    if unknown := set(databases) - set(DATABASES):
        parser.error(f"--on: {', '.join(sorted(unknown))} is not one of {', '.join(DATABASES)}")
    print(render(rows(operations=options.operations, databases=databases), {}))


if __name__ == "__main__":
    main()
