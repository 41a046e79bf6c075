"""The database is away for half a minute: work goes on, nothing is lost, nobody is kept waiting without an answer."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from chaos.conftest import Plan
from chaos.fleet import Fleet, Stream, fleet
from chaos.outages import OUTAGES
from ktrdr.cli.client import Api
from ktrdr.errors import KtrdrError
from support.chaos import no_tracebacks, runs
from support.postgres import Postgres
from support.processes import advancing, wait_for
from support.proxy import FaultProxy

AWAY_S = 30.0
ANSWER_S = 20.0  # within this a client is told that the ledger does not answer


def _answers(made: Fleet, seconds: float) -> list[float]:
    """Ask for an operation again and again; how long each answer took."""
    took, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        began = time.monotonic()
        with contextlib.suppress(KtrdrError), Api(made.parts.url, timeout_s=60.0) as api:
            api.get("/operations/quick")
        took.append(time.monotonic() - began)
        time.sleep(1.0)
    return took


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
                running = made.chaos.submit(api, "long")
                advancing(api, running)
            end = OUTAGES[outage](postgres, [proxy])
            try:
                slowest_s = max(_answers(made, away_s))
            finally:
                end()
            took_s = made.converged()
            wait_for(lambda: len(stream.acknowledged) > 5, "work is taken again")
            acknowledged = [running, *stream.stop()]
            views = made.check(acknowledged)
            assert {view["failures"] for view in views.values()} == {0}, "no attempt was lost"
            assert runs(made.trace).total() == len(acknowledged), "no attempt was repeated"
            assert slowest_s < ANSWER_S
            assert stream.refused or plan.short, "nobody noticed"
            no_tracebacks(made.parts)
    finally:
        proxy.close()
    plan.tell(
        f"PostgreSQL {outage} for {away_s:.0f} s: {len(acknowledged)} operations, slowest answer {slowest_s:.1f} s, "
        f"whole again after {took_s:.1f} s; refused meanwhile: {dict(stream.refused)}"
    )
