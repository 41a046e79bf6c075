"""Two backends are updated one after the other to a version that changes the ledger's tables, under load."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from chaos.company import Repeater, company
from chaos.conftest import Plan
from ktrdr.operations.sql.tables import SCHEMA
from support.bounds import kept
from support.chaos import no_tracebacks, runs
from support.newer import NEXT, newer_ktrdr
from support.postgres import Postgres
from support.processes import advancing, wait_for

BOUND_S = 30.0
MIGRATION_S = 3.0  # as where there are many operations


@pytest.mark.timeout(600)
def test_a_version_that_migrates_the_ledger(tmp_path: Path, plan: Plan, postgres: Postgres) -> None:
    random = plan.random("upgrade")
    newer = {"PYTHONPATH": str(newer_ktrdr(tmp_path / "newer", last=f"SELECT pg_sleep({MIGRATION_S})"))}
    with company(tmp_path / "run", postgres, random, "old", "new") as made:
        made.several.worker("w1")
        several = made.several
        assert several.backends["new"].stop() == 0
        assert several.leader() == "old"
        stream = Repeater(made)
        with several.api("old") as api:
            advancing(api, made.submit(api, "long", "long"))
        began = time.monotonic()
        made.backend("new", **newer)  # while the old one leads and is asked all the time
        made.enough.touch()
        wait_for(lambda: several.health("new").get("role") == "leader", "the new one leads", BOUND_S)
        event = "a backend of a version that changes the tables starts beside an older one"
        took_s = kept(event, time.monotonic() - began, MIGRATION_S)
        taken = stream.taken
        wait_for(lambda: stream.taken > taken + 4, "the new one takes work")

        told = httpx.get(f"{several.url('old')}/api/v1/operations", timeout=60, trust_env=False)
        assert told.status_code == 503
        problem = told.json()
        assert (
            problem["type"] == "urn:ktrdr:problem:not-leader"
        )  # so clients and workers ask the next address
        assert (
            f"has schema {NEXT} since a newer ktrdr brought it there; this backend knows {SCHEMA}"
            in problem["detail"]
        )
        assert several.says("old")["role"] == "follower"
        with several.api("old", "new") as both:
            assert both.get("/operations")["total"] > 0, "a client that knows both addresses notices nothing"

        assert several.backends["old"].stop() == 0
        failed = several.parts.start(
            "backend-older", ["backend", "start", "--port", "0"], made.settings("old")
        )
        assert failed.process.wait(60) != 0, "an older program does not start on a newer ledger"
        assert f"was written by a newer ktrdr (schema {NEXT}; this one knows up to {SCHEMA})" in failed.text()
        made.backend("old", **newer)
        made.whole(BOUND_S)
        stream.stop()
        views = made.check()
        assert {view["failures"] for view in views.values()} == {0}
        assert runs(made.trace).total() == len(views), "what ran was not run again"
        no_tracebacks(several.parts)
    plan.tell(
        f"rolling upgrade with a migration of {MIGRATION_S:.0f} s: {len(views)} operations, the new backend leads "
        f"{took_s:.1f} s after its start; refused meanwhile: {dict(stream.refused)}"
    )
