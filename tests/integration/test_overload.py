"""A backend that cannot record as fast as it is asked to says so at once, keeps what it took, and recovers."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from support.bounds import within

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from control.backend import Backend, backend
from control.crowd import Plan, crowd
from control.http import Answer, Client
from control.load import training

pytestmark = pytest.mark.integration
AT_ONCE, LINE = 16, 256
EVENT = "more submissions than the backend can record"


async def overloaded(target: Backend) -> list[Answer]:
    """What 400 clients are told while the ledger stands still, 20 more after them, and one when it goes on."""
    client = Client(target.url)

    def submit(count: int) -> list[asyncio.Task[Answer]]:
        return [asyncio.create_task(client.ask("POST", "/trainings/start", training())) for _ in range(count)]

    with closing(sqlite3.connect(target.home / "ktrdr.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        crowd_of_them = submit(400)
        await asyncio.wait(crowd_of_them[-1:], timeout=30)
        with within(EVENT):
            refused = await asyncio.gather(*submit(19))
            path = f"{target.url}/api/v1/trainings/start"
            told = await asyncio.to_thread(httpx.post, path, json=training(), trust_env=False)
        assert (told.status_code, told.headers["retry-after"]) == (503, "1")
        assert told.json()["title"] == "Too much at once"
        assert {answer.status for answer in refused} == {503}
        problem = json.loads(refused[0].content)
        assert problem["type"] == "urn:ktrdr:problem:overloaded"
        waiting = [task for task in crowd_of_them if not task.done()]
        assert AT_ONCE <= len(waiting) <= AT_ONCE + LINE
        assert (await client.ask("GET", "/operations")).status == 200, "reads go on"
        other.execute("ROLLBACK")
    with within(EVENT):
        taken = await asyncio.gather(*waiting)
        (after,) = await asyncio.gather(*submit(1))
    assert {answer.status for answer in taken} == {202}, "what was let in is recorded"
    assert after.status == 202
    client.close()
    return [*taken, after]


def test_too_many_submissions_are_refused_at_once_and_none_that_was_taken_is_lost() -> None:
    with backend() as target, crowd(Plan("", "trainer", 1, kind="training"), target.url):
        with target.wire() as wire:
            wire.ask("POST", "/data/samples")
            wire.ask("POST", "/trainings/start", training())
        taken = asyncio.run(overloaded(target))
        refused = target.metrics()["ktrdr_submissions_refused_total"]
        assert refused == 400 + 20 + 1 - len(taken)
        with target.wire() as wire:
            assert wire.ask("GET", "/operations?limit=1").body["total"] == len(taken) + 1
