"""What a storm does to a fleet: each fault begins at once and gives what ends it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping
from random import Random
from typing import Protocol

import psutil

from chaos.fleet import Fleet
from support.processes import Part
from support.proxy import Weather

__all__ = ["BACKEND", "NETWORK", "WORKER", "Fault", "Heal", "Workers", "jobs_of"]


class Workers(Protocol):
    """A fleet, as far as its workers go."""

    @property
    def workers(self) -> dict[str, Part]: ...

    def worker(self, name: str, *, wait: bool = True) -> Part:
        """Start the worker of this name, again."""


Heal = Callable[[], object]
Fault = Callable[[Fleet, str, Random], Heal]
WorkerFault = Callable[[Workers, str, Random], Heal]


def _nothing() -> None:
    """Heals by itself."""


# --- processes of a worker ----------------------------------------------------------------------------------------


def _worker_killed(fleet: Workers, name: str, random: Random) -> Heal:
    fleet.workers[name].kill()
    return lambda: fleet.worker(name, wait=False)


def _worker_stopped(fleet: Workers, name: str, random: Random) -> Heal:
    """SIGSTOP: it and its network stand still, its job goes on."""
    part = fleet.workers[name]
    part.signal(signal.SIGSTOP)
    return lambda: part.signal(signal.SIGCONT)


def _worker_ended(fleet: Workers, name: str, random: Random) -> Heal:
    """SIGTERM, as at an update."""
    part = fleet.workers[name]
    part.signal(signal.SIGTERM)

    def again() -> None:
        assert part.process.wait(40) == 0, part.text()
        fleet.worker(name, wait=False)

    return again


def jobs_of(part: Part) -> list[psutil.Process]:
    """The job's processes: grandchildren, below the nursery."""
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for nursery in psutil.Process(part.pid).children():
            found += nursery.children()
    return found


def _job_killed(fleet: Workers, name: str, random: Random) -> Heal:
    for job in jobs_of(fleet.workers[name]):
        with contextlib.suppress(psutil.NoSuchProcess):
            job.kill()
    return _nothing


def _job_stopped(fleet: Workers, name: str, random: Random) -> Heal:
    stopped = jobs_of(fleet.workers[name])

    def signalled(number: signal.Signals) -> None:
        for job in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                job.send_signal(number)

    signalled(signal.SIGSTOP)
    return lambda: signalled(signal.SIGCONT)


# --- the backend --------------------------------------------------------------------------------------------------


def _backend_killed(fleet: Fleet, name: str, random: Random) -> Heal:
    fleet.backend.kill()
    return fleet.start_backend


def _backend_stopped(fleet: Fleet, name: str, random: Random) -> Heal:
    part = fleet.backend
    part.signal(signal.SIGSTOP)
    return lambda: part.signal(signal.SIGCONT)


def _backend_ended(fleet: Fleet, name: str, random: Random) -> Heal:
    part = fleet.backend
    part.signal(signal.SIGTERM)

    def again() -> None:
        assert part.process.wait(40) == 0, part.text()
        fleet.start_backend()

    return again


# --- the network --------------------------------------------------------------------------------------------------


def _weather(weather: Weather) -> Fault:
    def begin(fleet: Fleet, name: str, random: Random) -> Heal:
        link = fleet.links[name]
        link.change(weather)
        # Held bytes arrive late, or their connections are gone: both happen in real networks.
        return lambda: link.heal(reset=bool(weather.held) and random.random() < 0.5)

    return begin


def _one_way(*, to_worker: bool) -> Fault:
    """Packets of one direction are lost: the requests of one side, and the answers to the other's."""

    def begin(fleet: Fleet, name: str, random: Random) -> Heal:
        link = fleet.links[name]
        link.out.change(Weather(held=frozenset({"back" if to_worker else "there"})))
        link.into.change(Weather(held=frozenset({"there" if to_worker else "back"})))
        return lambda: link.heal(reset=random.random() < 0.5)

    return begin


WORKER: Mapping[str, WorkerFault] = {
    "worker killed": _worker_killed,
    "worker stopped": _worker_stopped,
    "worker ended": _worker_ended,
    "job killed": _job_killed,
    "job stopped": _job_stopped,
}
BACKEND: Mapping[str, Fault] = {
    "backend killed": _backend_killed,
    "backend stopped": _backend_stopped,
    "backend ended": _backend_ended,
}
NETWORK: Mapping[str, Fault] = {
    "network delays": _weather(Weather(delay_s=1.0)),
    "network loses": _weather(Weather(lost=0.3)),
    "network refuses": _weather(Weather(refused=True)),
    "network half open": _weather(Weather(held=frozenset({"there", "back"}))),
    "network cut to worker": _one_way(to_worker=True),
    "network cut to backend": _one_way(to_worker=False),
    "network cuts answers": _weather(Weather(cut_after=60)),
    "network doubles": _weather(Weather(doubled=0.7)),
    "network doubles late": _weather(Weather(doubled=0.7, late_s=8.0)),
    "network drips": _weather(Weather(drip_s=0.005)),
}
