"""The ledger in PostgreSQL, by real processes: work, an outage, a killed backend, a backend with other files."""

from __future__ import annotations

import time

import pytest

from ktrdr.errors import Unavailable
from support.postgres import Postgres
from support.processes import Parts, advancing, environment, finished, ktrdr, wait_for
from support.strategies import endless_training

LEASE_S = 4.0  # of support.processes.FAST


def test_training_and_backtest_with_the_ledger_in_postgresql(alone: Parts, postgres: Postgres) -> None:
    url = postgres.url(postgres.database(), password="s3cret")
    backend = alone.backend(KTRDR_DATABASE_URL=url)
    trainer = alone.worker("training", "t1")
    tester = alone.worker("backtesting", "b1")
    with alone.api() as api:
        api.post("/data/samples")
        trained = finished(
            api, api.post("/trainings/start", {"strategy_name": "sp500_trend"})["operation_id"]
        )
        assert trained["status"] == "completed", trained
        started = api.post("/backtests/start", {"strategy_name": "sp500_trend"})
        tested = finished(api, started["operation_id"])
        assert tested["status"] == "completed", tested
        assert tested["result_summary"]["total_trades"] > 0

        endless = api.post("/trainings/start", {"strategy": endless_training()})["operation_id"]
        advancing(api, endless)
        postgres.stop()
        try:
            with pytest.raises(Unavailable, match=r"does not answer: .*connects again by itself"):
                api.get(f"/operations/{endless}")
            with pytest.raises(Unavailable, match="does not answer"):
                api.post("/backtests/start", {"strategy_name": "sp500_trend"})
            time.sleep(LEASE_S + 1)  # longer than a lease, which nobody can renew meanwhile
        finally:
            postgres.start()
        wait_for(lambda: _runs_on(api, endless), "the training is seen again")
        assert api.get("/operations")["total"] == 3, "what was refused was not recorded"
        assert finished(api, tested["operation_id"])["result_summary"] == tested["result_summary"]

        backend.kill()
        again = alone.backend(KTRDR_DATABASE_URL=url)
        wait_for(lambda: _runs_on(api, endless), "the training is adopted")

        second = ktrdr(
            "backend", "start", "--port", "0", env=environment(alone.root / "other", KTRDR_DATABASE_URL=url)
        )
        assert second.returncode == 2
        assert "belongs to the files in " in second.stderr
        assert f"and KTRDR_HOME={alone.root / 'other'} is another folder" in second.stderr
        assert "Traceback" not in second.stderr

        api.post(f"/operations/{endless}/cancel")
        assert finished(api, endless)["status"] == "cancelled"
    for part in (trainer, tester, again):
        assert part.stop() == 0
    told = backend.text() + again.text() + second.stdout + second.stderr
    assert "s3cret" not in told
    assert "Traceback" not in told
    assert not (alone.home / "ktrdr.db").exists()


def _runs_on(api, operation_id: str) -> bool:
    """Whether the first attempt advances; never another one."""
    try:
        before = api.get(f"/operations/{operation_id}")
        assert (before["status"], before["attempt"]) == ("running", 1), before
        after = advancing(api, operation_id)
    except Unavailable:
        return False
    return bool(after["progress"]["items_done"] >= before["progress"]["items_done"])
