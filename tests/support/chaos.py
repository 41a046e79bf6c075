"""A fleet for tests that break it: a real backend and real workers whose jobs do as the specification's text says."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ktrdr.cli.client import Api
from ktrdr.operations.events import CancelRequested
from ktrdr.operations.model import NewOperation, OperationType
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.protocol.specs import canonical_json
from ktrdr.testing.worker_jobs import spec
from support.processes import Part, Parts, wait_for

__all__ = ["Chaos", "ended", "integrity", "no_tracebacks", "runs"]

PROGRAM = """
import os
from ktrdr.workers.kinds import run_worker
from ktrdr.workers.backtest_worker import BacktestWorker
BacktestWorker.preload = ()
port = int(os.environ.get("WORKER_PORT") or 0)
run_worker("backtesting", host="127.0.0.1", port=port, job="ktrdr.testing.chaos_jobs:perform")
"""
_TERMINAL = ("completed", "failed", "cancelled")


class Chaos:
    """Parts, and submissions of test jobs over HTTP.

    The backend takes only backtests of trained models. So a cancelled operation with the wanted instruction is put into
    the ledger before it starts, and ``POST /operations/{id}/retry`` submits that work again, as often as wanted.
    """

    def __init__(self, parts: Parts, database: str | None = None, **instructions: str) -> None:
        self.parts = parts
        asyncio.run(self._seed(database or self.parts.home / "ktrdr.db", instructions))

    async def _seed(self, where: str | Path, instructions: dict[str, str]) -> None:
        self.parts.home.mkdir(parents=True, exist_ok=True)
        store = SqlStore(where)
        now = datetime.now(UTC)
        for name, instruction in instructions.items():
            body = canonical_json(spec(instruction))
            new = NewOperation(operation_id=name, operation_type=OperationType.BACKTESTING, spec=body)
            await store.submit(new, now)
            await store.apply(name, CancelRequested(), now)
        await store.close()

    def worker(self, name: str, *, wait: bool = True, home: Path | None = None, **extra: str) -> Part:
        """Start a worker; the same name again is the same worker."""
        settings = {"WORKER_ID": name, "KTRDR_HOME": str(home or self.parts.home)}
        settings |= {"KTRDR_API_URL": self.parts.url} | extra
        part = self.parts.start(name, ["-c", PROGRAM], settings, program=())
        if wait:
            self.parts.wait_worker(name, "available", part)
        return part

    def submit(self, api: Api, name: str, key: str | None = None) -> str:
        """Submit the work of this name; returns the id of an acknowledged operation."""
        headers = {"Idempotency-Key": key} if key else {}
        answer = api.request("POST", f"/operations/{name}/retry", headers=headers)
        return str(answer.json()["operation_id"])


def ended(api: Api, operation_ids: list[str], timeout_s: float = 90.0) -> dict[str, Any]:
    """Wait until all have ended; returns them by id."""

    views: dict[str, Any] = {}

    def all_ended() -> bool:
        for name in operation_ids:
            if views.get(name, {}).get("status") not in _TERMINAL:  # what has ended is final
                views[name] = api.get(f"/operations/{name}")
        return all(view["status"] in _TERMINAL for view in views.values())

    wait_for(all_ended, "every operation ends", timeout_s)
    return views


def runs(trace: Path, word: str = "begin") -> Counter[str]:
    """How often each ``operation.attempt`` began (or came to its ``end``), as the jobs themselves wrote it down."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    return Counter(line.partition(" ")[2] for line in lines if line.startswith(word + " "))


def integrity(home: Path) -> str:
    """What SQLite says of the ledger's file."""
    with closing(sqlite3.connect(f"file:{home / 'ktrdr.db'}?mode=ro", uri=True)) as connection:
        return str(connection.execute("pragma integrity_check").fetchone()[0])


def no_tracebacks(parts: Parts) -> None:
    """Fail if a log holds a traceback: whatever is done to a part, it is expected."""
    for log in sorted(parts.root.glob("*.log")):
        text = log.read_text(errors="replace")
        assert "Traceback" not in text, f"{log.name}:\n{text[-4000:]}"
