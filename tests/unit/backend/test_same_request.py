"""A request that comes again under its Idempotency-Key is the operation that it made, whatever changed meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ktrdr.backend.submission.request_digest import request_digest
from ktrdr.protocol.requests import StartTraining
from support.control_plane import ControlPlane
from support.models import add_model

BACKTEST, TRAIN = "/api/v1/backtests/start", "/api/v1/trainings/start"


async def started(plane: ControlPlane, path: str, body: dict[str, Any] | None = None, key: str = "k") -> str:
    answer = await plane.ask("POST", path, body, idempotency_key=key)
    assert answer.status == 202, answer.json()
    return str(answer.json()["operation_id"])


async def test_a_newer_model_makes_no_other_request(stocked: ControlPlane) -> None:
    """The answer was lost; when the script asks again a training has brought another newest model."""
    older = await add_model(stocked)
    body = {"strategy_name": "sp500_trend", "start_date": "2014-01-01"}
    first = await started(stocked, BACKTEST, body)
    newer = replace(await add_model(stocked, network=True), created_at=older.created_at + timedelta(days=1))
    await stocked.store.save_model(newer)
    assert await started(stocked, BACKTEST, body) == first
    other = await started(stocked, BACKTEST, body, key="other")
    spec = await stocked.api("GET", f"/operations/{other}/spec")
    assert spec["spec"]["model"] == newer.bundle_digest  # else nothing was shown


async def test_what_cannot_be_meant_any_more_was_recorded_all_the_same(stocked: ControlPlane) -> None:
    body = {"strategy_name": "sp500_trend"}
    first = await started(stocked, TRAIN, body)
    assert (await stocked.ask("DELETE", "/api/v1/data/SP500/1d")).status in (200, 204)
    assert await started(stocked, TRAIN, body) == first
    assert (await stocked.ask("POST", TRAIN, body, idempotency_key="other")).status == 404
    assert (await stocked.ask("POST", TRAIN, body | {"seed": 3}, idempotency_key="k")).status == 404


@pytest.mark.parametrize("change", [{"priority": 3}, {"prefer_gpu": False}, {"require_gpu": True}])
async def test_another_body_under_the_same_key_is_refused(
    stocked: ControlPlane, change: dict[str, Any]
) -> None:
    body = {"strategy_name": "sp500_trend"}
    await stocked.join("t2", "training")
    first = await started(stocked, TRAIN, body)
    answer = await stocked.ask("POST", TRAIN, body | change, idempotency_key="k")
    assert answer.status == 422
    assert (
        f"'k' already belongs to operation {first}, which came with another request" in answer.body.decode()
    )
    assert await started(stocked, TRAIN, body) == first


async def test_a_retry_and_a_start_are_not_one_request(stocked: ControlPlane) -> None:
    first = await started(stocked, TRAIN, {"strategy_name": "sp500_trend"})
    await stocked.until(first, "running")
    await stocked.deliver(stocked.workers["t1"], first, "failed", error="boom")
    assert (await stocked.ask("POST", f"/api/v1/operations/{first}/retry", idempotency_key="k")).status == 422


def test_what_makes_no_difference() -> None:
    plain = StartTraining.model_validate({"strategy_name": "a"})
    spelt = StartTraining.model_validate({"priority": 0, "when_busy": "reject", "strategy_name": "a"})
    assert request_digest("training", plain) == request_digest("training", spelt)
    assert request_digest("backtesting", plain) != request_digest("training", plain)
    half = StartTraining.model_construct(strategy_name="\ud800")  # no UTF-8, and not to end in a traceback
    assert request_digest("training", half) != request_digest("training", plain)
