"""Leading and following, where the jobs of a role, or the taking of it, go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from ktrdr.backend.cluster.roles import Roles
from ktrdr.operations.sql.fence import Fence
from ktrdr.testing.memory_election import MemoryElection, MemoryLeadership
from support.control_plane import calm, settle


class _Member:
    """A backend that is nothing but its role; ``job`` is what a leader does all the time."""

    def __init__(self, leadership: MemoryLeadership, **more: Any) -> None:
        self.follows = False
        self.faults: list[Exception] = []  # of the next takings of the lead
        self.job = asyncio.Event().wait  # never set
        self.roles = Roles(
            leadership,
            Fence(),
            take=self._take,
            leave=self._leave,
            leading=self._leading,
            following=self._following,
            **more,
        )

    async def _take(self) -> None:
        if self.faults:
            raise self.faults.pop()

    async def _leave(self) -> None:
        pass

    def _leading(self) -> list[Coroutine[Any, Any, Any]]:
        return [self.job()]

    def _following(self) -> list[Coroutine[Any, Any, Any]]:
        self.follows = True
        return []

    async def is_following(self) -> bool:
        return self.follows

    async def leads(self) -> bool:
        return self.roles.epoch is not None


@asynccontextmanager
async def _two() -> AsyncIterator[tuple[MemoryElection, _Member]]:
    """The first of two, which leads; the other one is there to take the lead."""
    election = MemoryElection()
    first, second = _Member(election.candidate("a")), _Member(election.candidate("b"))
    await first.roles.start()
    await second.roles.start()
    try:
        yield election, first
    finally:
        async with asyncio.timeout(20):
            await first.roles.stop()
            await second.roles.stop()


async def test_who_learns_late_who_leads_follows_all_the_same() -> None:
    """As where the database was away when the backend started."""
    election, gate = MemoryElection(), asyncio.Event()

    class Late(MemoryLeadership):
        async def run(self) -> None:
            await gate.wait()
            await super().run()

    first, second = _Member(election.candidate("a")), _Member(Late(election, "b", None), patience_s=0.01)
    await first.roles.start()
    await second.roles.start()
    assert not second.follows
    gate.set()
    try:
        await settle(second.is_following, bool)
    finally:
        await first.roles.stop()
        await second.roles.stop()


async def test_a_stop_in_the_middle_of_a_change_of_roles_is_one() -> None:
    async with _two() as (election, first):
        ending, gate = asyncio.Event(), asyncio.Event()

        async def slow_to_end() -> bool:
            try:
                return await asyncio.Event().wait()
            finally:
                ending.set()
                await gate.wait()

        election.hand_over()
        first.job = slow_to_end
        election.hand_over()
        await settle(first.leads, bool)
        await calm()
        election.hand_over()
        await ending.wait()
        stopping = asyncio.create_task(first.roles.stop())
        await calm()
        gate.set()
        done, _ = await asyncio.wait({stopping}, timeout=10)
        assert done, "the stop was taken for the end of the job that it waited for"


async def test_a_lead_that_cannot_be_taken_is_tried_again() -> None:
    async with _two() as (election, first):
        election.hand_over()
        await settle(first.leads, lambda leads: not leads)
        first.faults = [ValueError("no such luck")]
        election.hand_over()
        await settle(first.leads, bool)
        assert not first.faults


async def test_a_job_that_failed_does_not_keep_the_role() -> None:
    async with _two() as (election, first):

        async def fails() -> bool:
            raise ValueError("a bug")

        election.hand_over()
        first.job = fails
        election.hand_over()
        await settle(first.leads, bool)
        await calm()
        election.hand_over()
        await settle(first.leads, lambda leads: not leads)
        first.job = asyncio.Event().wait
        election.hand_over()
        await settle(first.leads, bool)
