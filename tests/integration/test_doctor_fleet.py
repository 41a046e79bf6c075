"""``ktrdr doctor`` beside a running fleet, which notices nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import CALM, Parts, ktrdr, parts

pytestmark = pytest.mark.integration


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as started:
        yield started


def test_a_healthy_fleet(alone: Parts) -> None:
    backend = alone.backend(**CALM)
    alone.worker("backtesting", "b1")
    env = alone.environment()
    done = ktrdr("doctor", "--json", env=env)
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert (found["backend"]["status"], found["backend"]["detail"]) == ("ok", f"answers at {alone.url}")
    assert (found["workers"]["status"], found["workers"]["detail"]) == ("ok", "1 backtesting")
    assert found["database"]["status"] == "ok"
    assert found["clock"]["detail"] == "agrees with the backend's"
    assert done.returncode == 0
    with alone.api() as api:
        assert api.get("/workers")["total"] == 1
    assert backend.stop() == 0
    assert "WARNING" not in backend.text()
    gone = ktrdr("doctor", env=env)
    assert gone.returncode == 1
    assert "fail  backend: " in gone.stdout
