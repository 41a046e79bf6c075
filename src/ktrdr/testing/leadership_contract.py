"""The laws of :class:`ktrdr.operations.leadership.Leadership` as tests that every implementation inherits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from ktrdr.operations.leadership import Leadership

__all__ = ["Candidates", "LeadershipContract"]

Candidates = Callable[[str], Leadership]
_PATIENCE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (a condition of any kind has no event)
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def standing(*candidates: Leadership) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Candidates that take part, one after the other, each once it is known who led before it came."""
    tasks = []
    try:
        for candidate in candidates:
            tasks.append(asyncio.create_task(candidate.run()))
            async with asyncio.timeout(_PATIENCE_S):
                await candidate.decided.wait()
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for candidate in candidates:
            await candidate.resign()


def leaders(candidates: Sequence[Leadership]) -> list[Leadership]:
    return [candidate for candidate in candidates if candidate.epoch is not None]


class LeadershipContract:
    """Inherit and provide the fixture ``candidates``, which makes backends of one empty ledger by name."""

    async def test_the_first_leads_and_the_others_know_it(self, candidates: Candidates) -> None:
        group = [candidates(name) for name in ("a", "b", "c")]
        for candidate in group:
            assert candidate.epoch is None
            assert not candidate.decided.is_set()
        async with standing(*group):
            assert leaders(group) == group[:1]
            await until(lambda: all(c.leader is not None and c.leader.name == "a" for c in group))
            assert {c.leader for c in group} == {group[0].leader}
            assert group[0].leader is not None
            assert group[0].leader.epoch == group[0].epoch

    async def test_one_that_resigns_is_followed_by_another_in_a_later_term(
        self, candidates: Candidates
    ) -> None:
        first, second = candidates("a"), candidates("b")
        async with standing(first, second):
            before = first.epoch
            await first.resign()
            assert first.epoch is None
            await until(lambda: second.epoch is not None)
            assert before is not None
            assert second.epoch is not None
            assert second.epoch > before
            await first.resign()  # again, which does nothing

    async def test_one_that_ends_without_a_word_is_followed(self, candidates: Candidates) -> None:
        first, second = candidates("a"), candidates("b")
        async with standing(first, second) as tasks:
            tasks[0].cancel()
            await until(lambda: second.epoch is not None)
            assert first.epoch is None

    async def test_one_that_resigned_may_lead_again(self, candidates: Candidates) -> None:
        only = candidates("a")
        async with standing(only) as tasks:
            before = only.epoch
            await only.resign()
            async with asyncio.timeout(_PATIENCE_S):
                await tasks[0]
        async with standing(only):
            await until(lambda: only.epoch is not None)
            assert before is not None
            assert only.epoch is not None
            assert only.epoch > before

    async def test_every_change_of_the_epoch_is_told(self, candidates: Candidates) -> None:
        only = candidates("a")
        seen: list[int | None] = []
        only.on_change = lambda: seen.append(only.epoch)
        async with standing(only):
            led = only.epoch
        assert led is not None
        assert seen == [led, None]

    async def test_news_reach_all_the_others_and_not_their_teller(self, candidates: Candidates) -> None:
        group = [candidates(name) for name in ("a", "b", "c")]
        heard: dict[str, list[str]] = {candidate.name: [] for candidate in group}
        for candidate in group:
            candidate.on_news = heard[candidate.name].append
        async with standing(*group):
            await group[1].tell("one of b")
            await group[0].tell("two of a")
            await until(lambda: heard["c"] == ["one of b", "two of a"])
            await until(lambda: heard["a"] == ["one of b"] and heard["b"] == ["two of a"])

    @pytest.mark.parametrize("count", [2, 5])
    async def test_of_many_that_come_at_once_one_leads(self, candidates: Candidates, count: int) -> None:
        group = [candidates(str(number)) for number in range(count)]
        tasks = [asyncio.create_task(candidate.run()) for candidate in group]
        try:
            await until(lambda: all(candidate.decided.is_set() for candidate in group))
            assert len(leaders(group)) == 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert leaders(group) == []
