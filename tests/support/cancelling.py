"""A cancel that arrives together with what its task waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["cancels_that_count"]

_TURNS = 12


async def cancels_that_count(work: Callable[[], Awaitable[Any]], come: Callable[[], None]) -> list[bool]:
    """Let what ``work`` waits for ``come``, and cancel it in each of the next turns of the loop, as far as it goes on.

    Says for each turn whether the cancel ended the task.
    """
    counted: list[bool] = []
    for turns in range(_TURNS):
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.001)
        come()
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        await asyncio.wait({task})
        counted.append(task.cancelled())
    return counted
