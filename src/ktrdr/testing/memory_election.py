"""An election and a board in memory, for several backends in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from ktrdr.errors import NotLeader
from ktrdr.operations.leadership import Leader, Leadership, News
from ktrdr.operations.sql.board import WorkerState
from ktrdr.operations.sql.fence import Fence

__all__ = ["MemoryBoard", "MemoryElection", "MemoryLeadership"]


class MemoryElection:
    """What the ledger's row and lock are to real backends."""

    def __init__(self) -> None:
        self.epoch = 0
        self.holder: MemoryLeadership | None = None
        self.known: Leader | None = None
        self.candidates: list[MemoryLeadership] = []

    def candidate(self, name: str, address: str | None = None) -> MemoryLeadership:
        return MemoryLeadership(self, name, address)

    def hand_over(self) -> None:
        """The lock goes to whoever stands, the present holder last."""
        standing = sorted(self.candidates, key=lambda c: c is self.holder)
        self.holder = standing[0] if standing else None
        if self.holder is not None:
            self.epoch += 1
            self.known = Leader(self.epoch, self.holder.name, self.holder.address)
        for candidate in list(self.candidates):
            candidate.look()


class MemoryLeadership(Leadership):
    """Keeps the laws of its interface with a :class:`MemoryElection`."""

    def __init__(self, election: MemoryElection, name: str, address: str | None) -> None:
        super().__init__(name, address)
        self._election = election
        self._resigned = asyncio.Event()

    async def run(self) -> None:
        election = self._election
        self._resigned.clear()
        election.candidates.append(self)
        try:
            if election.holder is None:
                election.hand_over()
            self.look()
            self.decided.set()
            await self._resigned.wait()
        finally:
            self._leave()

    def look(self) -> None:
        """See who leads."""
        self.leader = self._election.known
        self._became(self._election.epoch if self._election.holder is self else None)

    async def resign(self) -> None:
        self._resigned.set()
        self._leave()

    def _leave(self) -> None:
        election = self._election
        if self in election.candidates:
            election.candidates.remove(self)
        self._became(None)
        if election.holder is self:
            election.hand_over()

    async def tell(self, news: News) -> None:
        for candidate in self._election.candidates:
            if candidate is not self:
                asyncio.get_running_loop().call_soon(candidate.on_news, news)


class MemoryBoard:
    """What the leader put up, with the look at the term that the ledger's transaction makes."""

    def __init__(self, election: MemoryElection, fence: Fence, shared: dict[str, WorkerState]) -> None:
        self._election, self._fence, self._states = election, fence, shared

    async def post(self, states: Iterable[WorkerState], gone: Collection[str] = ()) -> None:
        if self._fence.epoch != self._election.epoch:
            raise NotLeader("This backend does not lead.")
        for name in gone:
            self._states.pop(name, None)
        for state in states:
            self._states[state.worker_id] = state

    async def states(self) -> Mapping[str, WorkerState]:
        return dict(self._states)
