"""A ledger as a busy desk has it after three months: a million operations, written in bulk through the ledger's tables.

Nine in ten are backtests; all but a few thousand have ended; fifty operations share a specification on average; stories
of the last week are whole, the older ones a line. Everything follows from a seed.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from typing import Any

from sqlalchemy import Engine, insert

from ktrdr.operations import story
from ktrdr.operations.events import Accepted, Assigned, CancelRequested, Finished
from ktrdr.operations.machine import new_operation, step
from ktrdr.operations.model import JobOutcome, NewOperation, Operation, OperationStatus, OperationType
from ktrdr.operations.rows import row_of_operation
from ktrdr.operations.sql.tables import operations, specs, tallies

__all__ = ["NOW", "Content", "fill"]

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_DAYS, _WHOLE_DAYS = 90, 7
_WORKERS = 1_000
_PER_SPEC = 50
_CHUNK = 5_000
PENDING, ASSIGNED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED = OperationStatus
_ENDED = {COMPLETED: 0.93, FAILED: 0.05, CANCELLED: 0.02}
_PENDING, _RUNNING = 5_000, 1_000  # at most: a quarter and a twentieth of a small ledger
_COLUMNS = [column.name for column in operations.columns]
_SPEC = {"kind": "backtesting", "symbol": "SP500", "timeframe": "1d", "strategy": "x" * 1_200}
_FIGURES = ("total_return", "annual_return", "sharpe_ratio", "sortino_ratio", "max_drawdown", "win_rate")

Template = dict[str, Any]


@dataclass
class Content:
    """What was written: ids by status, and how many of each type and status there are."""

    ids: dict[OperationStatus, list[str]] = field(default_factory=lambda: {s: [] for s in OperationStatus})
    counts: Counter[tuple[OperationType, OperationStatus]] = field(default_factory=Counter)


def fill(engine: Engine, count: int, seed: int = 7) -> Content:
    """Write ``count`` operations, in transactions of a few thousand rows; returns what they are."""
    content, rows = Content(), _rows(count, random.Random(seed))
    with engine.begin() as connection:
        for index in operations.indexes:  # made at the end: much faster than row by row
            index.drop(connection)
    distinct = max(1, count // _PER_SPEC)
    with engine.begin() as connection:
        connection.execute(
            insert(specs), [{"digest": d, "content": c} for d, c in map(_spec, range(distinct))]
        )
    while chunk := list(islice(rows, _CHUNK)):
        for kind, status, row in chunk:
            content.ids[status].append(row["operation_id"])
            content.counts[kind, status] += 1
        _write(engine, [row for _, _, row in chunk])
    with engine.begin() as connection:
        for index in operations.indexes:
            index.create(connection)
        connection.execute(
            insert(tallies),
            [
                {"operation_type": kind.value, "status": status.value, "count": found}
                for (kind, status), found in content.counts.items()
            ],
        )
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(
                "VACUUM ANALYZE"
            )  # as autovacuum does on a ledger that grew for months
    return content


def _write(engine: Engine, rows: list[Template]) -> None:
    with engine.begin() as connection:
        if engine.dialect.name != "postgresql":
            connection.execute(insert(operations), rows)
            return
        driver: Any = connection.connection.driver_connection
        with (
            driver.cursor() as cursor,
            cursor.copy(f"COPY operations ({', '.join(_COLUMNS)}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row([row[name] for name in _COLUMNS])


def _spec(number: int) -> tuple[str, bytes]:
    content = json.dumps(_SPEC | {"number": number}, sort_keys=True).encode()
    return sha256(content).hexdigest(), content


def _rows(count: int, rng: random.Random) -> Iterator[tuple[OperationType, OperationStatus, Template]]:
    digests = [_spec(number)[0] for number in range(max(1, count // _PER_SPEC))]
    templates = {
        (kind, status): _template(kind, status) for kind in OperationType for status in OperationStatus
    }
    start_us = int((NOW - timedelta(days=_DAYS)).timestamp() * 1e6)
    whole_us = int((NOW - timedelta(days=_WHOLE_DAYS)).timestamp() * 1e6)
    step_us = _DAYS * 86_400_000_000 // count
    waiting_from = count - min(_PENDING, count // 4)
    live_from = waiting_from - min(_RUNNING, count // 20)
    ended, weights = list(_ENDED), list(_ENDED.values())
    for number in range(count):
        kind = OperationType.TRAINING if rng.random() < 0.1 else OperationType.BACKTESTING
        if number >= waiting_from:
            status = PENDING
        elif number >= live_from:
            status = RUNNING
        else:
            status = rng.choices(ended, weights)[0]
        created_us = start_us + number * step_us
        row = dict(templates[kind, status])
        row["operation_id"] = f"op_{kind.value}_{number:07d}_{rng.getrandbits(32):08x}"
        row["created_us"] = created_us
        row["spec_digest"] = digests[rng.randrange(len(digests))]
        row["idempotency_key"] = f"key-{number}" if number % 3 == 0 else None
        if row["worker_id"] is not None:
            row["worker_id"] = f"worker-{rng.randrange(_WORKERS):04d}"
        for name in ("started_us", "completed_us", "lease_expires_us"):
            if row[name] is not None:
                row[name] = created_us + 60_000_000
        if status.terminal and created_us < whole_us:
            row["story"], row["compacted"] = row["line"], 1
        del row["line"]
        yield kind, status, row


def _template(kind: OperationType, status: OperationStatus) -> Template:
    """A row as the machine's own steps and the ledger's own words make it."""
    operation = _life(
        new_operation(NewOperation(operation_id="op", operation_type=kind, spec=b"{}"), NOW), status
    )
    row = row_of_operation(operation)
    line = replace(operation, story=story.compacted(operation.story))
    return row | {"line": row_of_operation(line)["story"], "compacted": 0}


def _life(operation: Operation, status: OperationStatus) -> Operation:
    if status is PENDING:
        return operation
    operation = step(operation, Assigned("worker-0000", "instance-0", NOW), NOW).operation
    assignment = operation.assignment
    assert assignment is not None
    if status is ASSIGNED:
        return operation
    operation = step(operation, Accepted(assignment, NOW), NOW).operation
    if status in (CANCELLING, CANCELLED):
        operation = step(operation, CancelRequested(), NOW).operation
    if not status.terminal:
        return operation
    files = {name: sha256(name.encode()).hexdigest() for name in ("result", "trades", "equity", "log")}
    failed = status is FAILED
    outcome = JobOutcome(
        status=status,
        summary={} if failed else dict.fromkeys(_FIGURES, 0.123456789012),
        artifacts={} if failed else files,
        error="ValueError: the training split has no rows of class SELL" if failed else None,
    )
    return step(operation, Finished(assignment, outcome), NOW).operation
