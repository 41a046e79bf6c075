"""Waiting for something that other tasks bring about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["until"]


async def until(condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
    """Return once ``condition()`` is true; TimeoutError if it does not become so."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (what is waited for knows of no event)
            await asyncio.sleep(0.002)
