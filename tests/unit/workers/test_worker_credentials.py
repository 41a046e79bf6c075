"""Who opens a worker's routes, before and after its backend has made a credential for it."""

from __future__ import annotations

import asyncio

from ktrdr.workers.credentials import Credentials
from support.cancelling import cancels_that_count


class Asked:
    """Counts how often the worker is told to register again."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_its_own_tokens_open_until_the_backend_made_one() -> None:
    credentials = Credentials("api", "enrol", Asked())
    assert credentials.needed
    assert await credentials.admit("api")
    assert await credentials.admit("enrol")
    credentials.learn("made")
    assert await credentials.admit("made")
    assert await credentials.admit("api")
    assert not await credentials.admit("enrol")
    credentials.learn(None)  # a backend that makes none takes none away
    assert await credentials.admit("made")


async def test_without_tokens_nothing_is_needed() -> None:
    assert not Credentials(None, None, Asked()).needed


async def test_what_is_unknown_makes_it_register_again_and_waits_for_that() -> None:
    asked = Asked()
    credentials = Credentials(None, "enrol", asked)
    credentials.learn("old")
    waiting = [asyncio.create_task(credentials.admit("new")) for _ in range(3)]
    await asyncio.sleep(0)
    credentials.learn("new")
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert asked.times == 1


async def test_who_guesses_makes_it_register_again_once_in_a_while() -> None:
    asked = Asked()
    credentials = Credentials(None, "enrol", asked)
    guesses = asyncio.create_task(credentials.admit("guess"))
    await asyncio.sleep(0)
    credentials.learn("made")
    assert not await guesses
    for number in range(50):
        assert not await credentials.admit(f"guess {number}")
    assert not await credentials.admit("")
    assert asked.times == 1


async def test_after_the_pause_it_asks_again() -> None:
    asked = Asked()
    credentials = Credentials(None, "enrol", asked, pause_s=0.0)
    for _ in range(2):
        guess = asyncio.create_task(credentials.admit("guess"))
        await asyncio.sleep(0)
        credentials.learn("made")
        assert not await guess
    assert asked.times == 2


async def test_a_request_that_is_broken_off_as_the_news_comes_ends() -> None:
    made: list[Credentials] = []

    async def admit() -> bool:
        made.append(Credentials(None, "enrol", Asked()))
        return await made[-1].admit("new")

    counted = await cancels_that_count(admit, lambda: made[-1].learn("new"))
    assert counted
    assert all(counted), "a cancel was lost"
