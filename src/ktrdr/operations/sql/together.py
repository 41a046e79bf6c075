"""Questions of many askers that are answered in one reading."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

__all__ = ["Together"]

K = TypeVar("K")
V = TypeVar("V")


class Together(Generic[K, V]):
    """Asks for many things at once what is asked for one at a time.

    What is asked while a reading is under way goes into the next one, so no answer is older than its question; whoever
    is alone does not wait.
    """

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._waiting: dict[K, asyncio.Future[Mapping[K, V]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def ask(self, key: K) -> Mapping[K, V]:
        """A reading in which the key was asked for; raises what the reading raised."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._serve())
        return await asyncio.shield(future)

    async def _serve(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, {}
                await self._answer(asked)
        finally:
            self._reading = None

    async def _answer(self, asked: Mapping[K, asyncio.Future[Mapping[K, V]]]) -> None:
        try:
            answers = await self._read(list(asked))
        except Exception as error:  # whatever it is, those who asked must learn it
            for future in asked.values():
                future.set_exception(error)
                future.exception()  # an asker who has gone away did not want to know
            return
        except BaseException:
            for future in asked.values():
                future.cancel()
            raise
        for future in asked.values():
            future.set_result(answers)
