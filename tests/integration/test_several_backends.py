"""Several backends on one ledger, by real processes: all answer, one dispatches, another one takes over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from ktrdr.errors import NotLeader
from support.chaos import no_tracebacks
from support.postgres import Postgres
from support.processes import CALM, advancing, environment, finished, ktrdr, wait_for
from support.several import Several, several
from support.several_scenarios import SCENARIOS

pytestmark = pytest.mark.integration

Make = Callable[..., Several]
NONE: Mapping[str, str] = {}


@pytest.fixture
def make(tmp_path: Path, postgres: Postgres) -> Iterator[Make]:
    with several(tmp_path, postgres.url(postgres.database())) as company:

        def filled(*backends: str, settings: Mapping[str, str] = NONE, **instructions: str) -> Several:
            company.seed(instructions)
            company.reserve(*backends)
            for name in backends:
                company.backend(name, **settings)
            return company

        yield filled


def _events(url: str, operation: str, enough: Path) -> list[dict[str, Any]]:
    """What this backend tells somebody who follows the operation to its end, which comes once it was seen to advance."""
    path = f"{url}/api/v1/operations/{operation}/events"
    told: list[dict[str, Any]] = []
    with httpx.stream("GET", path, timeout=60, trust_env=False) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line[6:]))
                if len(_on_the_way(told)) >= 3:
                    enough.touch()
    return told


def _on_the_way(told: list[dict[str, Any]]) -> set[float]:
    """Percentages between beginning and end."""
    return {p for view in told if 0 < (p := view["progress"]["percentage"]) < 100}


def test_a_follower_answers_everything_and_the_leader_does_the_work(make: Make, tmp_path: Path) -> None:
    trace, enough = tmp_path / "trace", tmp_path / "enough"
    jobs = {"quick": f"trace {trace} 0.1", "long": f"trace {trace} 600", "climb": f"climb 1600 0.05 {enough}"}
    # nobody has a reason to lead instead, though the machine stands still for a while
    company = make("a", "b", settings=CALM | {"KTRDR_LEADER_LEASE_S": "120"}, **jobs)
    leader = company.leader()
    [follower] = company.followers()
    assert company.says(follower)["epoch"] == company.says(leader)["epoch"]
    with company.api(follower) as api:
        with pytest.raises(NotLeader, match=f"{company.url(leader)}.*KTRDR_API_URL"):
            api.post(
                "/workers/register",
                {
                    "worker_id": "x",
                    "worker_type": "backtesting",
                    "endpoint_url": "http://127.0.0.1:9",
                    "instance_id": "i",
                    "capabilities": {},
                },
            )
        company.worker("w1")
        company.worker("w2")
        wait_for(lambda: api.get("/workers")["total"] == 2, "the follower knows the workers")

        done = finished(api, company.submit(api, "quick"))
        assert (done["status"], done["attempt"]) == ("completed", 1)
        digest = done["artifacts"]["result"]
        whole = httpx.get(f"{company.url(follower)}/api/v1/artifacts/{digest}", timeout=60, trust_env=False)
        assert whole.text == f"result of {done['operation_id']}.1"

        seen = _events(company.url(follower), company.submit(api, "climb"), enough)
        told = [view["progress"]["percentage"] for view in seen if view["status"] == "running"]
        assert told == sorted(told)
        assert len(_on_the_way(seen)) >= 3, "it is seen to advance"
        assert (seen[-1]["status"], seen[-1]["progress"]["percentage"]) == ("completed", 100.0)

        long = company.submit(api, "long")
        assert advancing(api, long)["progress"]["items_done"] > 0
        busy = {w["worker_id"]: w["current_operation_id"] for w in api.get("/workers")["workers"]}
        wait_for(
            lambda: long in {w["current_operation_id"] for w in api.get("/workers")["workers"]},
            f"busy: {busy}",
        )
        began = time.monotonic()
        with httpx.stream(
            "GET", f"{company.url(follower)}/api/v1/operations/{long}/events", timeout=60, trust_env=False
        ) as answer:
            with company.api(leader) as other:
                other.post(f"/operations/{long}/cancel")
            seen = [
                json.loads(line[6:])["status"] for line in answer.iter_lines() if line.startswith("data: ")
            ]
        assert seen[-1] == "cancelled"
        assert time.monotonic() - began < 10

        another = company.submit(api, "long")
        advancing(api, another)
        assert api.post(f"/operations/{another}/cancel")["status"] == "cancelling"
        waited = api.get(f"/operations/{another}", wait=30)
        assert waited["status"] == "cancelled"
        with company.api(leader) as other:
            assert other.get(f"/operations/{another}")["status"] == "cancelled"
            api.delete(f"/operations/{another}")
            assert another not in [o["operation_id"] for o in other.get("/operations")["operations"]]
        gauges = {
            name: httpx.get(f"{company.url(name)}/metrics", timeout=60, trust_env=False).text
            for name in (leader, follower)
        }
    assert "\nktrdr_backend_leader 1.0" in gauges[leader]
    assert "\nktrdr_backend_leader 0.0" in gauges[follower]
    drained = ktrdr(
        "workers",
        "drain",
        "w1",
        env=environment(company.parts.home, KTRDR_API_URL=f"{company.url(follower)},{company.url(leader)}"),
    )
    assert drained.returncode == 0, drained.stderr
    no_tracebacks(company.parts)


@pytest.mark.parametrize("name", ["killed leader", "stopped leader"])
def test_nothing_is_lost_or_done_twice(make: Make, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    company = make("a", "b", quick=f"trace {trace} 0.05", long=f"trace {trace} 3600")
    for worker in ("w1", "w2"):
        company.worker(worker)
    SCENARIOS[name](company, trace, Random(1))
    no_tracebacks(company.parts)
