"""Retention: what ended long ago is forgotten, what did not is not, and a clock that was set deletes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ktrdr.backend.upkeep.housekeeping import Housekeeping
from ktrdr.errors import NotFound
from support.control_plane import STILL, ControlPlane, settle

DAY = 86_400.0


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path, replace(STILL, retention_days=30)).running() as plane:
        yield plane


async def ended(plane: ControlPlane) -> str:
    """A completed operation that has a story and a log."""
    worker = plane.workers.get("w1") or await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    await plane.deliver(worker, name)
    folder = plane.config.home / "job-logs" / name
    folder.mkdir(parents=True)
    (folder / "1").write_text("said by the job")
    return name


async def test_stories_are_compacted_after_a_week_and_operations_forgotten_after_the_retention(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ktrdr.backend")
    old = await ended(plane)
    keeping = plane.backend.housekeeping
    plane.clock.advance(6.9 * DAY)
    await keeping.round()
    assert len((await plane.store.get(old)).story) > 1
    plane.clock.advance(0.2 * DAY)
    young = await ended(plane)
    running = await plane.submit()
    await plane.until(running, "running")
    await keeping.round()
    assert len((await plane.store.get(old)).story) == 1
    assert len((await plane.store.get(young)).story) > 1
    plane.clock.advance(24 * DAY)
    await keeping.round()
    with pytest.raises(NotFound):
        await plane.store.get(old)
    assert not (plane.config.home / "job-logs" / old).exists()
    assert (plane.config.home / "job-logs" / young).exists()
    assert {o.operation_id for o in await plane.store.live()} == {running}
    assert (await plane.store.get(young)).status == "completed"
    told = [record.getMessage() for record in caplog.records if "Retention" in record.message]
    assert told[0].startswith("Retention: 1 stories were made one line; 0 operations that ended before 20")
    assert told[1].startswith("Retention: 1 stories were made one line; 1 operations that ended before 20")
    assert len(told) == 2


async def test_more_than_a_step_is_done_in_one_round(plane: ControlPlane) -> None:
    names = [await plane.submit() for _ in range(450)]
    for name in names:
        await plane.api("POST", f"/operations/{name}/cancel")
    plane.clock.advance(31 * DAY)
    await plane.backend.housekeeping.round()
    assert await plane.store.counts() == {}


@pytest.mark.parametrize("days", [100, -100])
async def test_a_clock_that_was_set_deletes_nothing_until_it_was_right_for_a_round(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture, days: int
) -> None:
    name = await ended(plane)
    plane.clock.jump(days * DAY)
    await plane.backend.housekeeping.round()
    assert (await plane.store.get(name)).status == "completed"
    assert "The clock was set; nothing is deleted" in caplog.text
    plane.clock.advance(131 * DAY)
    await plane.backend.housekeeping.round()
    assert await plane.store.counts() == {}


async def test_a_round_comes_every_hour_or_twenty_four_times_in_a_shorter_retention(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    for retention, pauses in (
        (timedelta(days=90), [600, 3_600, 3_600]),
        (timedelta(days=1), [600, 3_600, 3_600]),
        (timedelta(minutes=12), [5, 30, 30]),
    ):
        waited: list[float] = []

        async def sleep(seconds: float, waited: list[float] = waited) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                raise asyncio.CancelledError

        keeping = Housekeeping(plane.backend.operations, plane.clock, retention)
        with monkeypatch.context() as patch:
            patch.setattr("ktrdr.backend.upkeep.housekeeping.asyncio.sleep", sleep)
            with pytest.raises(asyncio.CancelledError):
                await keeping.run()
        assert waited == pauses


async def test_a_failing_round_does_not_end_the_loop(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    class Stumbling(Housekeeping):
        rounds = 0

        async def round(self) -> None:
            self.rounds += 1
            if self.rounds == 1:
                raise RuntimeError("planted")

    keeping = Stumbling(plane.backend.operations, plane.clock, timedelta(milliseconds=1))
    loop = asyncio.create_task(keeping.run())

    async def rounds() -> int:
        return keeping.rounds

    await settle(rounds, lambda count: count > 2)
    loop.cancel()
    assert "Retention failed" in caplog.text
