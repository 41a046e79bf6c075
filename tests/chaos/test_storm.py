"""Storms over a whole fleet: after each nothing is lost, nothing was done twice, and the fleet is whole again."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from chaos.conftest import Plan
from chaos.faults import BACKEND, NETWORK, WORKER
from chaos.fleet import Fleet, Stream, fleet
from support.chaos import integrity, no_tracebacks, runs
from support.postgres import Postgres

WORKERS = ("w1", "w2", "w3")
LONGEST_S = 6.0  # of a fault; a lease is 4 s
BOUND_S = 60.0  # until the fleet is whole; a start of a process takes seconds on a busy machine


class Storm:
    """Round after round of faults, dealt so that each kind comes before any comes again."""

    def __init__(self, made: Fleet, plan: Plan, name: str) -> None:
        self.fleet, self.random = made, plan.random(name)
        self.injected: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._deck: list[str] = []

    def round(self) -> None:
        """One or two faults at once, each at another part, and their end."""
        workers = self.random.sample(WORKERS, 2)
        count = 2 if self.random.random() < 0.4 else 1
        faults = WORKER | BACKEND | NETWORK
        heals = []
        for worker in workers[:count]:
            name = self._deal()
            if name in BACKEND and any(n in BACKEND for n, _ in heals):
                continue
            self.injected[name] += 1
            heals.append((name, faults[name](self.fleet, worker, self.random)))
            time.sleep(self.random.uniform(0.0, 0.5))
        time.sleep(self.random.uniform(0.1, LONGEST_S))
        for _, heal in heals:
            heal()
        self.slowest_s = max(self.slowest_s, self.fleet.converged(BOUND_S))

    def _deal(self) -> str:
        if not self._deck:
            self._deck = [*WORKER, *BACKEND, *NETWORK]
            self.random.shuffle(self._deck)
        return self._deck.pop()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("ledger", ["sqlite", "postgres"])
def test_storms(ledger: str, tmp_path: Path, plan: Plan, request: pytest.FixtureRequest) -> None:
    database = None
    if ledger == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        database = postgres.url(postgres.database())
    with fleet(tmp_path, plan.random(f"{ledger}/network"), database) as made:
        for worker in WORKERS:
            made.worker(worker)
        storm = Storm(made, plan, f"{ledger}/storm")
        stream = Stream(made, plan.random(f"{ledger}/stream"))
        for _ in range(plan.rounds):
            storm.round()
            made.check(list(stream.acknowledged))
        acknowledged = stream.stop()
        views = made.check(acknowledged)
        assert len(set(acknowledged)) == len(acknowledged)
        assert len(acknowledged) >= 2 * plan.rounds, f"hardly anything was submitted: {stream.refused}"
        _tell(plan, ledger, storm, made, Counter(v["status"] for v in views.values()))
        if ledger == "sqlite":
            assert integrity(made.parts.home) == "ok"
        no_tracebacks(made.parts)


def _tell(plan: Plan, ledger: str, storm: Storm, made: Fleet, ends: Counter[str]) -> None:
    network = sum((link.counts() for link in made.links.values()), Counter[str]())
    executed = runs(made.trace).total()

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))

    plan.tell(
        f"storm over {ledger}, seed {plan.seed}: {plan.rounds} rounds, {storm.injected.total()} faults "
        f"({listed(storm.injected)}); network: {listed(network)}; {ends.total()} operations ({listed(ends)}) in "
        f"{executed} runs; whole again after at most {storm.slowest_s:.1f} s"
    )
