"""One real fleet for the scenario tests of a session: a backend, one training and three backtesting workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ktrdr.cli.client import Api
from support.processes import Part, Parts, finished, ktrdr, parts
from support.strategies import edited, minutes


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the session's fleet run first and on one xdist worker, so that there is one fleet, and not for long."""
    for item in items:
        if "tests/e2e" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)
        if _on_the_fleet(item):
            item.add_marker(pytest.mark.xdist_group("fleet"))
    items.sort(key=lambda item: not _on_the_fleet(item))


def _on_the_fleet(item: pytest.Item) -> bool:
    return "fleet" in getattr(item, "fixturenames", ()) and "tests/e2e" in item.path.as_posix()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The fleet ends with its last test: a fleet that only waits costs a tenth of a core for the rest of the session."""
    if _on_the_fleet(item) and (nextitem is None or not _on_the_fleet(nextitem)):
        for running in item.session.stash.get(_FLEETS, []):
            running.stop()


_FLEETS = pytest.StashKey[list[Parts]]()


@dataclass(frozen=True)
class Fleet:
    """The running fleet and a client of it."""

    parts: Parts
    api: Api
    backend: Part
    workers: dict[str, Part]

    def cli(self, *arguments: str, cwd: Path | None = None) -> Any:
        return ktrdr(*arguments, env=self.parts.environment(), cwd=cwd)

    def endpoint(self, worker_id: str) -> str:
        return str(self.api.get(f"/workers/{worker_id}")["endpoint_url"])


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with the bundled data."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ or "@fleet" in request.session.items[0].nodeid
    assert alone, (
        "each xdist worker would start a fleet: pytest -n needs --dist loadgroup, and a pytest that heeds groups"
    )
    with parts(tmp_path_factory.mktemp("fleet")) as running:
        request.session.stash.setdefault(_FLEETS, []).append(running)
        backend = running.backend()
        names = [
            ("training", "train-1"),
            ("backtesting", "bt-1"),
            ("backtesting", "bt-2"),
            ("backtesting", "bt-3"),
        ]
        workers = {name: running.worker(kind, name, wait=False) for kind, name in names}
        for name, part in workers.items():
            running.wait_worker(name, "available", part)
        with running.api() as api:
            api.post("/data/samples")
            yield Fleet(running, api, backend, workers)


@pytest.fixture(scope="session")
def trained(fleet: Fleet) -> Any:
    """The operation of a finished training of sp500_trend."""
    started = fleet.api.post("/trainings/start", {"strategy_name": "sp500_trend"})
    operation = finished(fleet.api, started["operation_id"])
    assert operation["status"] == "completed", operation
    return operation


@pytest.fixture(autouse=True)
def _idle_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """A scenario hands the shared fleet on with nobody busy."""
    yield
    if "fleet" in request.fixturenames:
        running: Fleet = request.getfixturevalue("fleet")
        for status in ("pending", "assigned", "running", "cancelling"):
            for operation in running.api.get("/operations", status=status)["operations"]:
                running.api.post(f"/operations/{operation['operation_id']}/cancel")
                finished(running.api, operation["operation_id"])
        for name in running.workers:
            running.parts.wait_worker(name, "available")


@pytest.fixture(scope="session")
def slow_backtest(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request for a backtest that takes many seconds: a wide network over 600,000 bars."""
    path = tmp_path_factory.mktemp("slow") / "big.parquet"
    minutes(600_000).write_parquet(path)
    done = fleet.cli(
        "data", "import", str(path), "--symbol", "BIG", "--timeframe", "1m", "--calendar", "24/7"
    )
    assert done.returncode == 0, done.stderr
    text = edited(
        "sp500_trend",
        name="slow",
        training_data__symbols=["BIG"],
        training_data__timeframes=["1m"],
        training_data__start_date="2015-01-05",
        training_data__end_date="2015-01-07",
        model__architecture__hidden_layers=[768, 768],
        training__epochs=1,
    )
    started = fleet.api.post("/trainings/start", {"strategy": text})
    operation = finished(fleet.api, started["operation_id"])
    assert operation["status"] == "completed", operation
    return {"strategy": text}


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Parts]:
    """Parts for one test that starts what it needs."""
    with parts(tmp_path) as running:
        yield running
