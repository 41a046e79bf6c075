"""Several backends on one ledger: the server's lock, each backend's session with it, and the fence at every write."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextvars import Context, copy_context
from random import Random
from typing import Any, cast

import sqlalchemy

from ktrdr.errors import NotLeader, Unavailable
from ktrdr.operations.leadership import Leader, Leadership, News
from ktrdr.operations.sql.board import WorkerState
from ktrdr.operations.sql.fence import Fence
from ktrdr.testing.memory_election import MemoryBoard, MemoryElection
from simulation.laws import Laws
from simulation.plan import Weather
from simulation.trace import Trace
from simulation.virtual_time import Process

__all__ = ["Seat", "SimulatedBoard", "SimulatedElection", "SimulatedLeadership"]

_BEATS = 5  # looks at the ledger per lease, as PostgresLeadership has them
_LONGEST_BEAT_S = 1.0
_AGAIN_S = 1.0
_A_MOMENT_S = 1.0
_PATIENCE_S = 10.0
_CLOSED_AT_ONCE = (
    0.7  # of the sessions of killed processes; the others end like those of a machine that is gone
)


class SimulatedElection(MemoryElection):
    """The lock and the row at the server. A session that shows no sign for ``lease_s`` ends, and its lock is free."""

    def __init__(self, trace: Trace, laws: Laws, random: Random, lease_s: float) -> None:
        super().__init__()
        self.lease_s, self.random = lease_s, random
        self._trace, self._laws = trace, laws
        self._sign_at = 0.0
        self.granted_at = 0.0  # when the newest term began
        self.newest: Leadership | None = None  # whose term it is, whether its session lives or not
        self.states: dict[str, WorkerState] = {}

    def take(self, candidate: SimulatedLeadership) -> bool:
        """The lock, and with it a new term, if nobody has it."""
        now = self._trace.now()
        if self.holder is not None and now - self._sign_at < self.lease_s:
            return False
        if self.newest is not None:
            self._trace.situations["leader changed"] += self.newest.name != candidate.name
        self.holder = self.newest = candidate
        self.epoch += 1
        self.known = Leader(self.epoch, candidate.name, candidate.address)
        self._sign_at = self.granted_at = now
        self._trace.tell(f"{candidate.name} leads, epoch {self.epoch}")
        return True

    def sign(self, candidate: SimulatedLeadership) -> bool:
        """The holder lives; False if the lock is not its own any more."""
        now = self._trace.now()
        if self.holder is not candidate or now - self._sign_at >= self.lease_s:
            return False
        self._sign_at = now
        return True

    def leave(self, candidate: Leadership) -> None:
        """The session ends."""
        if candidate in self.candidates:
            self.candidates.remove(candidate)  # type: ignore[arg-type]
        if self.holder is candidate:
            self.holder = None

    def killed(self, candidate: Leadership) -> None:
        """Its process died; the server may learn of it at once, or only by its silence."""
        if self.random.random() < _CLOSED_AT_ONCE:
            self.leave(candidate)


class Seat:
    """One backend's place at the ledger: its session in the election, its fence, and the line between, which may be cut.

    Stands in for the connection of a transaction where the real fence looks at the ledger's epoch.
    """

    def __init__(self, name: str, election: SimulatedElection, trace: Trace, laws: Laws) -> None:
        self.name, self.election = name, election
        self._trace, self._laws = trace, laws
        self.cut_until = 0.0
        self.begin()

    def begin(self) -> None:
        """For a new process."""
        self.fence = Fence()
        self.leadership = SimulatedLeadership(self)
        self.told_otherwise_at: float | None = 0.0  # since when it knows that it does not lead

    @property
    def is_cut(self) -> bool:
        return self._trace.now() < self.cut_until

    @property
    def leads(self) -> bool:
        """Whether the newest term is this backend's, whatever it believes."""
        return self.election.newest is self.leadership

    def must_know_better(self, what: str) -> None:
        """It does what is the leader's; for a moment after it was told that it leads no more, it may."""
        since = self.told_otherwise_at
        self._laws.demand(
            since is None or self._trace.now() - since < _A_MOMENT_S,
            "who does not lead tends nothing",
            f"{what} by {self.name}, which knows since {since}",
        )

    async def reach(self, patience_s: float = _PATIENCE_S) -> None:
        """Raise Unavailable, after a while, if the ledger cannot be reached."""
        if not self.is_cut:
            return
        self._trace.fault("ledger cut off", self.name)
        await asyncio.sleep(min(patience_s, self.election.random.choice((0.01, patience_s))))
        raise Unavailable(f"The ledger did not answer {self.name}.")

    def scalar(self, statement: sqlalchemy.Select[Any]) -> int:
        """What the fence's statement reads."""
        return self.election.epoch

    def admit(self, what: str, about: str | None) -> None:
        """Let a write go on that is the leader's; raises NotLeader."""
        believed = self.fence.epoch
        try:
            self.fence.admit(cast("sqlalchemy.Connection", self))
        except NotLeader:
            if believed is not None:
                self._trace.situations["old leader's write refused"] += 1
                self._trace.tell(f"ledger: {what} of {self.name} refused, epoch {believed} is over", about)
            raise
        self._laws.demand(
            self.leads,
            "only the newest leader writes",
            f"{what} of {self.name}, epoch {believed}, was accepted in epoch {self.election.epoch}",
            about,
        )


class SimulatedLeadership(Leadership):
    """The session of :class:`ktrdr.operations.sql.election.PostgresLeadership` in virtual time."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat.name, f"http://{seat.name}")
        self._seat, self._election = seat, seat.election
        self._beat_s = min(seat.election.lease_s / _BEATS, _LONGEST_BEAT_S)
        self._resigned = False
        self._context: Context | None = None
        self.weather: Weather = Weather.calm()

    async def run(self) -> None:
        self._resigned = False
        self._context = copy_context()
        while not self._resigned:
            try:
                await self._session()
            except Unavailable:
                pass
            finally:
                self._became(None)
                self._election.leave(self)
            if not self._resigned:
                await asyncio.sleep(_AGAIN_S)

    async def _session(self) -> None:
        """Until the lock is lost, or the ledger did not answer for a lease."""
        election = self._election
        election.candidates.append(self)  # type: ignore[arg-type]
        while not self._resigned:
            await self._seat.reach(election.lease_s)
            await asyncio.sleep(election.random.uniform(0.001, 0.005))
            if self._epoch is not None and not election.sign(self):
                return
            if self._epoch is None and election.take(self):
                self._became(election.epoch)
            self.leader = election.known
            self.decided.set()
            await asyncio.sleep(self._beat_s)

    def _became(self, epoch: int | None) -> None:
        now = asyncio.get_running_loop().time()
        self._seat.told_otherwise_at = None if epoch is not None else self._seat.told_otherwise_at or now
        super()._became(epoch)

    async def resign(self) -> None:
        self._resigned = True
        self._became(None)
        self._election.leave(self)

    async def tell(self, news: News) -> None:
        await self._seat.reach(0.1)
        loop, election = asyncio.get_running_loop(), self._election
        for other in list(election.candidates):
            if other is self or election.random.random() < self.weather.drop:
                continue
            assert isinstance(other, SimulatedLeadership)
            after_s = election.random.uniform(0.001, 0.02)
            loop.call_later(after_s, other.hear, news, context=other._context)

    def hear(self, news: News) -> None:
        if not self._seat.is_cut:
            self.on_news(news)


class SimulatedBoard(MemoryBoard):
    """The board, behind the same line as the ledger, for as long as its backend lives."""

    def __init__(self, seat: Seat, process: Process) -> None:
        super().__init__(seat.election, seat.fence, seat.election.states)
        self._seat, self._process = seat, process

    async def post(self, states: Iterable[WorkerState], gone: Collection[str] = ()) -> None:
        await self._seat.reach()
        self._process.check()
        await super().post(states, gone)

    async def states(self) -> Mapping[str, WorkerState]:
        await self._seat.reach()
        return await super().states()
