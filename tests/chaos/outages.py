"""How a database goes away: each begins at once and gives what ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import psutil

from support.postgres import Postgres
from support.proxy import FaultProxy, Weather

__all__ = ["OUTAGES", "WAYS", "Outage"]

Outage = Callable[[Postgres, Sequence[FaultProxy]], Callable[[], object]]
BOTH = Weather(held=frozenset({"there", "back"}))
WAYS = {
    "both ways": BOTH,
    "to the database": Weather(held=frozenset({"there"})),
    "from the database": Weather(held=frozenset({"back"})),
}
"""Cuts of the road between a backend and the database."""


def _server(postgres: Postgres) -> list[psutil.Process]:
    parent = psutil.Process(int((postgres.data / "postmaster.pid").read_text().splitlines()[0]))
    return [parent, *parent.children(recursive=True)]


def _stand_still(postgres: Postgres, roads: Sequence[FaultProxy]) -> Callable[[], object]:
    """SIGSTOP: its machine answers, the server does not."""
    stopped = _server(postgres)
    for process in stopped:
        process.suspend()

    def again() -> None:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    return again


def _crash(postgres: Postgres, roads: Sequence[FaultProxy]) -> Callable[[], object]:
    postgres.stop()
    return postgres.start


def _unheard(postgres: Postgres, roads: Sequence[FaultProxy]) -> Callable[[], object]:
    """The network keeps what is sent in both directions; then the connections are gone."""
    for road in roads:
        road.change(BOTH)

    def again() -> None:
        for road in roads:
            road.change(Weather(), reset=True)

    return again


OUTAGES: dict[str, Outage] = {"stands still": _stand_still, "is stopped": _crash, "is not heard": _unheard}
