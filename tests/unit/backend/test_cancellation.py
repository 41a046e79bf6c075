"""Cancelling many operations by one request."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ktrdr.backend.operations.cancellation import cancel_many
from ktrdr.operations.model import OperationType
from ktrdr.operations.store import OperationPage, OperationQuery
from ktrdr.protocol.queueing import CancelOperations
from support.control_plane import ControlPlane

TRAINING = OperationType.TRAINING


async def _mixed(plane: ControlPlane) -> tuple[str, list[str], str]:
    """A running backtest, two waiting ones and a waiting training."""
    await plane.join("w1")
    running = await plane.submit()
    await plane.until(running, "running")
    waiting = [await plane.submit() for _ in range(2)]
    return running, waiting, await plane.submit(TRAINING)


async def _cancel(plane: ControlPlane, **body: Any) -> dict[str, Any]:
    answer = await plane.api("POST", "/operations/cancel", body)
    return {key: answer[key] for key in ("cancelled", "cancelling", "more")}


async def test_all_end_and_asking_again_is_no_error(plane: ControlPlane) -> None:
    running, waiting, training = await _mixed(plane)
    assert await _cancel(plane) == {"cancelled": 3, "cancelling": 1, "more": False}
    for name in (*waiting, training):
        assert await plane.status(name) == "cancelled"
    assert await plane.status(running) == "cancelling"
    assert await _cancel(plane) == {"cancelled": 0, "cancelling": 0, "more": False}
    await plane.deliver(plane.workers["w1"], running)
    assert await plane.status(running) == "cancelled"


async def test_filters(plane: ControlPlane) -> None:
    running, waiting, training = await _mixed(plane)
    assert await _cancel(plane, operation_type="training") == {"cancelled": 1, "cancelling": 0, "more": False}
    assert await plane.status(training) == "cancelled"
    assert await _cancel(plane, status=["pending"]) == {"cancelled": 2, "cancelling": 0, "more": False}
    assert [await plane.status(name) for name in waiting] == ["cancelled", "cancelled"]
    assert await plane.status(running) == "running"


async def test_what_is_submitted_later_stays(plane: ControlPlane) -> None:
    early = await plane.submit(TRAINING)
    plane.clock.advance(1.0)
    moment = plane.clock.now()
    late = await plane.submit(TRAINING)
    assert (await _cancel(plane, before=moment.isoformat()))["cancelled"] == 1
    assert (await plane.status(early), await plane.status(late)) == ("cancelled", "pending")
    answer = await plane.api("POST", "/operations/cancel", {})
    assert answer["cancelled"] == 1
    assert answer["before"] > (moment + timedelta(milliseconds=1)).isoformat()[:19]


async def test_a_bounded_number_by_one_request(plane: ControlPlane) -> None:
    running, _, _ = await _mixed(plane)
    every = CancelOperations()
    answers = [await cancel_many(plane.backend.operations, plane.clock, every, limit=2) for _ in range(5)]
    assert [(a.cancelled, a.cancelling, a.more) for a in answers] == [
        (2, 0, True),
        (1, 1, False),
        *[(0, 0, False)] * 3,
    ]
    assert await plane.status(running) == "cancelling"


async def test_two_users_at_once_count_each_operation_once(plane: ControlPlane) -> None:
    await _mixed(plane)
    answers = await asyncio.gather(*(_cancel(plane) for _ in range(2)))
    assert sum(a["cancelled"] for a in answers) == 3
    assert sum(a["cancelling"] for a in answers) == 1


async def test_what_moves_between_two_looks_is_found(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs while those that wait are read, and waits while those that run are: one look at all is certain."""
    name = await plane.submit()
    look = plane.backend.operations.store.page

    async def elsewhere(query: OperationQuery) -> OperationPage:
        page = await look(query)
        everywhere = {"pending", "assigned", "running"} <= {str(status) for status in query.statuses}
        return page if everywhere else replace(page, operations=())

    monkeypatch.setattr(plane.backend.operations.store, "page", elsewhere)
    assert (await _cancel(plane))["cancelled"] == 1
    assert await plane.status(name) == "cancelled"


@pytest.mark.parametrize(
    "body",
    [
        {"status": ["completed"]},
        {"status": []},
        {"before": "2026-01-01T00:00:00"},
        {"operation_type": "x"},
        {"all": 1},
    ],
)
async def test_filters_that_are_none_cancel_nothing(plane: ControlPlane, body: dict[str, Any]) -> None:
    name = await plane.submit()
    answer = await plane.ask("POST", "/api/v1/operations/cancel", body)
    assert answer.status == 422
    assert await plane.status(name) == "pending"
