"""Tests whose seconds pass at once and only when nothing else is left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

from simulation.virtual_time import VirtualLoop

__all__ = ["in_virtual_time"]

P = ParamSpec("P")


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run the test in a loop of virtual time: a limit of 50 ms ends when everybody waits, and never because the machine
    was busy elsewhere. For tests that touch no network; work for threads is done on the spot; their fixtures are plain
    ones."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
