"""Two backends and their database: away for both, or cut off from one of them, in each direction."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.company import Company, Repeater, company
from chaos.conftest import Plan
from chaos.outages import OUTAGES, WAYS
from ktrdr.cli.client import Api
from ktrdr.errors import KtrdrError
from support.bounds import LEADERS, kept, within
from support.chaos import no_tracebacks, runs
from support.postgres import Postgres
from support.processes import advancing, wait_for
from support.proxy import Weather

AWAY_S = 30.0
ANSWER_S = 20.0  # within this a client is told that the ledger does not answer
BOUND_S = 30.0  # until everything is as before; seconds, see the figures
CUT_OFF = "one of two backends cut off from the database, in either direction"
WORKERS = ("w1", "w2")
Begin = Callable[[Company], Callable[[], object]]


def _for_both(outage: str) -> Begin:
    return lambda made: OUTAGES[outage](made.postgres, list(made.roads.values()))


def _cut(*, leader: bool, way: str) -> Begin:
    """Only one of the two is cut off; when the network heals, half the time what was held back arrives late."""

    def begin(made: Company) -> Callable[[], object]:
        [follower] = made.several.followers()
        road = made.roads[made.several.leader() if leader else follower]
        road.change(WAYS[way])
        return lambda: road.change(Weather(), reset=made.random.random() < 0.5)

    return begin


FAULTS: dict[str, Begin] = {
    **{f"the database {outage}": _for_both(outage) for outage in OUTAGES},
    **{f"the leader is cut off, {way}": _cut(leader=True, way=way) for way in WAYS},
    **{f"the follower is cut off, {way}": _cut(leader=False, way=way) for way in WAYS},
}


def _answers(made: Company, seconds: float) -> float:
    """Ask every backend again and again; how long the slowest answer took."""
    slowest, deadline = 0.0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        for name in made.several.backends:
            began = time.monotonic()
            with contextlib.suppress(KtrdrError), Api(made.several.url(name), timeout_s=60.0) as api:
                api.get("/operations/quick")
            slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.5)
    return slowest


@pytest.mark.timeout(1_800)
def test_the_database_is_away_for_two_backends_or_for_one(
    tmp_path: Path, plan: Plan, postgres: Postgres
) -> None:
    random = plan.random("several/ledger")
    with company(tmp_path, postgres, plan.random("several/ledger/network"), "a", "b") as made:
        for worker in WORKERS:
            made.several.worker(worker)
        faults = list(FAULTS)
        if plan.short:  # one of each kind; all of them in the long run
            faults = ["the database stands still", random.choice([f for f in faults if "cut" in f])]
        for fault in faults:
            _endure(made, fault, AWAY_S / 5 if plan.short else AWAY_S, plan)
        no_tracebacks(made.several.parts)


def _endure(made: Company, fault: str, away_s: float, plan: Plan) -> None:
    """One fault under load, from its beginning until all is done that was accepted."""
    stream, known = Repeater(made), len(made.keyed)
    with made.several.api(made.several.leader()) as api:
        advancing(api, made.submit(api, "long", f"long {fault}"))
    before = made.several.says(made.several.leader())["epoch"]
    end = FAULTS[fault](made)
    made.enough.touch()  # what runs comes to its end meanwhile
    taken = stream.taken
    try:
        if "leader" in fault:
            [heir] = (name for name, road in made.roads.items() if road.weather == Weather())
            with within(CUT_OFF, LEADERS):
                wait_for(lambda: made.several.health(heir).get("role") == "leader", f"{heir} leads")
        slowest_s = _answers(made, away_s)
        meanwhile = stream.taken - taken
    finally:
        end()
    took_s = made.whole(BOUND_S)
    if "cut off" in fault:
        kept(CUT_OFF, took_s, LEADERS)
    else:
        kept("the database away for several backends", took_s)
    healed = stream.taken
    wait_for(lambda: stream.taken > healed + 3, "work is taken again")
    stream.stop()
    views = made.check()
    assert {view["failures"] for view in views.values()} == {0}, "no attempt was lost"
    assert runs(made.trace).total() == len(views), "no attempt was repeated"
    slowest_s = max(slowest_s, stream.slowest_s)
    assert slowest_s < ANSWER_S
    after = made.several.says(made.several.leader())["epoch"]
    if "leader" in fault:
        assert after > before, "the one that was cut off still leads"
        assert meanwhile > 0, "the other one does the work"
    elif "follower" in fault:
        assert after == before, "nobody had a reason to lead instead"
        assert meanwhile > 0
    plan.tell(
        f"two backends, {fault} for {away_s:.0f} s: {len(made.keyed) - known} operations, {meanwhile} taken meanwhile, "
        f"slowest answer {slowest_s:.1f} s, whole again after {took_s:.1f} s; refused: {dict(stream.refused)}"
    )
