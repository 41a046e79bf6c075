"""Leading and following: what a backend runs in each role, and how it changes from one to the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from ktrdr.errors import Unavailable
from ktrdr.operations.leadership import Leadership
from ktrdr.operations.sql.fence import Fence

__all__ = ["Roles"]

_log = logging.getLogger("ktrdr.backend")
_AGAIN_S = 1.0
_FIRST_S = 30.0

Loops = Callable[[], Iterable[Coroutine[Any, Any, Any]]]


class Roles:
    """Runs the loops of the role that the election gives.

    Laws
    ----
    - The fence is closed at the moment at which the election takes the lead away, before anything else is done.
    - No loop of one role runs beside one of the other.
    - Who does not lead follows, however late it learns who leads.
    - ``epoch`` is that of the term in which this backend serves as leader: everything is loaded and the loops run.

    Parameters
    ----------
    take
        Reads the ledger into memory, so that work goes on where the leader before left it; may raise Unavailable.
    leave
        Ends what goes on in the background.
    leading, following
        Give the loops of a role.
    patience_s
        How long :meth:`start` waits for the first role.
    """

    def __init__(
        self,
        leadership: Leadership,
        fence: Fence,
        *,
        take: Callable[[], Awaitable[None]],
        leave: Callable[[], Awaitable[None]],
        leading: Loops,
        following: Loops,
        patience_s: float = _FIRST_S,
    ) -> None:
        self.leadership, self._fence = leadership, fence
        self._take, self._leave, self._leading, self._following = take, leave, leading, following
        self.epoch: int | None = None
        self._patience_s = patience_s
        self._turn = asyncio.Event()
        self._settled = asyncio.Event()
        self._loops: list[asyncio.Task[Any]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        leadership.on_change = self._elected

    async def start(self) -> None:
        """Take part in the election; returns once the first role is taken, or when that lasts too long."""
        self._tasks = [asyncio.create_task(self.leadership.run()), asyncio.create_task(self._run())]
        settled = asyncio.create_task(self._settled.wait())
        await asyncio.wait(
            {settled, *self._tasks}, timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED
        )
        settled.cancel()
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """End the loops, then let another lead."""
        await _end(self._tasks)
        await self._end_role()
        await self.leadership.resign()

    def _elected(self) -> None:
        if self.leadership.epoch != self._fence.epoch:
            self._fence.epoch = None
        self._turn.set()

    async def _run(self) -> None:
        await self.leadership.decided.wait()  # however long: who is not elected is told of no change
        self._turn.set()
        while True:
            await self._turn.wait()
            self._turn.clear()
            epoch = self.leadership.epoch
            if self._settled.is_set() and epoch == self.epoch:
                continue
            await self._end_role()
            try:
                await self._begin(epoch)
            except Unavailable as error:
                _log.warning("Taking the lead waits for the ledger: %s", error)
            except Exception:  # the edge of a background job: who was given the lead keeps others from it
                _log.exception("Taking up the role failed; trying again")
            else:
                continue
            asyncio.get_running_loop().call_later(_AGAIN_S, self._turn.set)

    async def _begin(self, epoch: int | None) -> None:
        if epoch is not None:
            self._fence.epoch = epoch
            await self._take()
            if self.leadership.epoch != epoch:  # lost while the ledger was read; the next turn sees to it
                return
        loops = self._leading() if epoch is not None else self._following()
        self._loops = [asyncio.create_task(loop) for loop in loops]
        self.epoch = epoch
        self._settled.set()

    async def _end_role(self) -> None:
        self.epoch = None
        await _end(self._loops)
        self._loops = []
        await self._leave()


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel them and wait for their ends; a cancel of the caller meanwhile is not taken for one of theirs."""
    for task in tasks:
        task.cancel()
    for end in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(end, Exception):
            _log.error("A background job of this backend had failed; this is a bug", exc_info=end)
