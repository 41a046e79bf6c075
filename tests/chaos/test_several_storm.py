"""Storms over two backends, three workers and their database; after each nothing is lost, nothing was done twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from chaos.company import Company, Repeater, company
from chaos.conftest import Plan
from chaos.faults import WORKER, Heal
from chaos.outages import OUTAGES, WAYS
from support.bounds import kept
from support.chaos import no_tracebacks, runs
from support.postgres import Postgres
from support.proxy import Weather

BACKENDS, WORKERS = ("a", "b"), ("w1", "w2", "w3")
LONGEST_S = 6.0  # of a fault; a worker's lease is 4 s, the leader's 2 s
BOUND_S = 30.0  # until all are whole; a start of a process takes seconds on a busy machine
Begin = Callable[[Company, Random], Heal]


def _backend_killed(made: Company, random: Random) -> Heal:
    name = random.choice(BACKENDS)
    made.several.backends[name].kill()
    return lambda: made.backend(name)


def _backend_stopped(made: Company, random: Random) -> Heal:
    part = made.several.backends[random.choice(BACKENDS)]
    part.signal(signal.SIGSTOP)
    return lambda: part.signal(signal.SIGCONT)


def _backend_ended(made: Company, random: Random) -> Heal:
    name = random.choice(BACKENDS)
    made.several.backends[name].signal(signal.SIGTERM)

    def again() -> None:
        part = made.several.backends[name]
        assert part.process.wait(40) == 0, part.text()
        made.backend(name)

    return again


def _worker(fault: str) -> Begin:
    return lambda made, random: WORKER[fault](made, random.choice(WORKERS), random)


def _database(outage: str) -> Begin:
    return lambda made, random: OUTAGES[outage](made.postgres, list(made.roads.values()))


def _road(way: str) -> Begin:
    def begin(made: Company, random: Random) -> Heal:
        road = made.roads[random.choice(BACKENDS)]
        road.change(WAYS[way])
        return lambda: road.change(Weather(), reset=random.random() < 0.5)

    return begin


# Two at once are of two groups: a worker's, and one of the others.
BACKEND: dict[str, Begin] = {
    "backend killed": _backend_killed,
    "backend stopped": _backend_stopped,
    "backend ended": _backend_ended,
    **{f"database {outage}": _database(outage) for outage in OUTAGES},
    **{f"one backend cut off {way}": _road(way) for way in WAYS},
}
AT_WORKERS: dict[str, Begin] = {fault: _worker(fault) for fault in WORKER}


class _Deck:
    """Deals each before any comes again."""

    def __init__(self, faults: dict[str, Begin], random: Random) -> None:
        self._faults, self._random, self._left = faults, random, list[str]()

    def deal(self) -> tuple[str, Begin]:
        if not self._left:
            self._left = random_order(self._faults, self._random)
        name = self._left.pop()
        return name, self._faults[name]


def random_order(faults: dict[str, Begin], random: Random) -> list[str]:
    return random.sample(sorted(faults), len(faults))


@pytest.mark.timeout(1_800)
def test_storms_over_two_backends(tmp_path: Path, plan: Plan, postgres: Postgres) -> None:
    random = plan.random("several/storm")
    injected, slowest_s = Counter[str](), 0.0
    decks = _Deck(BACKEND, random), _Deck(AT_WORKERS, random)
    network = plan.random("several/storm/network")  # the proxies' threads take theirs whenever they need one
    with company(tmp_path, postgres, network, *BACKENDS) as made:
        for worker in WORKERS:
            made.worker(worker, wait=worker == WORKERS[-1])
        rounds = 2 if plan.short else plan.rounds
        for _ in range(rounds):
            stream = Repeater(made)
            heals = []
            for deck in decks if random.random() < 0.5 else (random.choice(decks),):
                name, begin = deck.deal()
                injected[name] += 1
                heals.append(begin(made, random))
                time.sleep(random.uniform(0.0, 0.5))
            time.sleep(random.uniform(0.5, LONGEST_S))
            for heal in heals:
                heal()
            took_s = kept("several of all these at once", made.whole(BOUND_S))
            slowest_s = max(slowest_s, took_s)
            stream.stop()
            views = made.check()
        no_tracebacks(made.several.parts)
        ends = Counter(view["status"] for view in views.values())
        told = ", ".join(f"{name} {count}" for name, count in sorted(injected.items()))
        plan.tell(
            f"storm over two backends, seed {plan.seed}: {rounds} rounds, {injected.total()} faults ({told}); "
            f"{dict(ends)} in {runs(made.trace).total()} runs; whole again after at most {slowest_s:.1f} s"
        )
