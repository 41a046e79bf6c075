"""The database is away for half a minute: work goes on, nothing is lost, nobody is kept waiting without an answer."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from chaos.conftest import Plan
from chaos.fleet import Fleet, Stream, fleet
from chaos.outages import OUTAGES
from support.bounds import allowed_s, kept
from support.chaos import no_tracebacks, runs
from support.postgres import Postgres
from support.processes import advancing, wait_for
from support.proxy import FaultProxy

AWAY_S = 30.0
ANSWER_S = 20.0  # within this a client is told that the ledger does not answer
EVENTS = {"is stopped": "database stopped for 30 s"}


@dataclass(frozen=True, slots=True)
class Told:
    """What somebody who asked while the ledger was away was told, and how long that took."""

    status: int
    detail: str
    again: str | None
    took_s: float


def _ask(made: Fleet, method: str, path: str) -> Told:
    began = time.monotonic()
    answer = httpx.request(method, f"{made.parts.url}/api/v1{path}", timeout=60.0, trust_env=False)
    detail = str(answer.json().get("detail", ""))
    return Told(answer.status_code, detail, answer.headers.get("retry-after"), time.monotonic() - began)


def _answers(made: Fleet, seconds: float) -> list[Told]:
    """Ask for an operation, and submit one, again and again."""
    told, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        told.append(_ask(made, "GET", "/operations/quick"))
        told.append(_ask(made, "POST", "/operations/quick/retry"))
        time.sleep(1.0)
    return told


def _said(told: list[Told], event: str) -> None:
    """Whoever asked was told in time, with what to do; who came just before it went or as it came back, was served."""
    turned_away = [answer for answer in told if answer.status == 503]
    assert {answer.status for answer in told} <= {200, 202, 503}
    assert len(turned_away) >= 2, told
    for answer in turned_away:
        assert re.search("(does|did) not answer", answer.detail), answer
        assert answer.again is not None, answer
    most_s = allowed_s(event) if event in EVENTS.values() else ANSWER_S
    assert max(answer.took_s for answer in told) < most_s
    if event not in EVENTS.values():
        assert any("It may still happen" in answer.detail for answer in turned_away), turned_away


@pytest.mark.timeout(600)
@pytest.mark.parametrize("outage", OUTAGES)
def test_the_database_is_away(outage: str, tmp_path: Path, plan: Plan, postgres: Postgres) -> None:
    away_s = AWAY_S / 5 if plan.short else AWAY_S
    random = plan.random(outage)
    name = postgres.database()
    proxy = FaultProxy(postgres.port, random)
    database = postgres.url(name).replace(f":{postgres.port}/", f":{proxy.port}/")
    try:
        with fleet(tmp_path, random, database) as made:
            for worker in ("w1", "w2"):
                made.worker(worker)
            stream = Stream(made, random)
            with made.parts.api() as api:
                running = made.chaos.submit(api, "endless")
                advancing(api, running)
            end = OUTAGES[outage](postgres, [proxy])
            made.enough.touch()  # what runs comes to its end meanwhile
            try:
                told = _answers(made, away_s)
            finally:
                end()
            event = EVENTS.get(outage, "database frozen or not heard for 30 s")
            took_s = kept(event, made.converged())
            wait_for(lambda: len(stream.acknowledged) > 5, "work is taken again")
            acknowledged = [running, *stream.stop()]
            views = made.check(acknowledged)
            assert {view["failures"] for view in views.values()} == {0}, "no attempt was lost"
            began = Counter(run.rpartition(".")[0] for run in runs(made.trace).elements())
            assert set(began.values()) == {1}, "no attempt was repeated"
            # more than these where a submission hung, was answered 503, and happened all the same
            assert set(acknowledged) <= set(began)
            _said(told, event)
            slowest_s = max(answer.took_s for answer in told)
            assert stream.refused or plan.short, "nobody noticed"
            no_tracebacks(made.parts)
    finally:
        proxy.close()
    plan.tell(
        f"PostgreSQL {outage} for {away_s:.0f} s: {len(acknowledged)} operations, slowest answer {slowest_s:.1f} s, "
        f"whole again after {took_s:.1f} s; refused meanwhile: {dict(stream.refused)}"
    )
