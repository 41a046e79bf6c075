"""Three backends on one ledger: their leaders are killed, stopped and restarted, again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.conftest import Plan
from support.chaos import no_tracebacks
from support.postgres import Postgres
from support.several import several
from support.several_scenarios import SCENARIOS

BACKENDS, WORKERS = ("a", "b", "c"), ("w1", "w2", "w3")


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_leaders_come_and_go(name: str, tmp_path: Path, postgres: Postgres, plan: Plan) -> None:
    random = plan.random(f"several/{name}")
    longest: dict[str, float] = {}
    rounds = max(1, plan.rounds // 4)
    with several(tmp_path, postgres.url(postgres.database())) as company:
        trace = tmp_path / "trace"
        company.seed({"quick": f"trace {trace} 0.05", "long": f"trace {trace} 3600"})
        company.reserve(*BACKENDS)
        for backend in BACKENDS:
            company.backend(backend)
        for worker in WORKERS:
            company.worker(worker)
        for _ in range(rounds):
            for what, seconds in SCENARIOS[name](company, trace, random).items():
                longest[what] = max(longest.get(what, 0.0), seconds)
        no_tracebacks(company.parts)
    told = ", ".join(f"{what} {seconds:.1f} s at most" for what, seconds in longest.items())
    plan.tell(
        f"several backends, seed {plan.seed}: {name}, {rounds} rounds, nothing lost or done twice; {told}"
    )
