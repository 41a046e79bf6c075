"""Which of the backends of one ledger leads: the interface."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Leader", "Leadership", "News"]

News = str
"""What backends tell each other: a short text; who gets it looks into the ledger."""


@dataclass(frozen=True, slots=True)
class Leader:
    """A term: its ``epoch``, the ``name`` of the backend that leads in it and the ``address`` where it serves."""

    epoch: int
    name: str
    address: str | None = None

    def __str__(self) -> str:
        return f"{self.name} at {self.address}" if self.address else self.name


class Leadership(ABC):
    """One backend's part in the election among all backends of a ledger.

    Laws
    ----
    - ``epoch`` is that of the term in which this backend leads, else None. Every term has a greater epoch than all
      before it, and at most one backend leads in it.
    - Two may believe for a moment that they lead: one of them has lost its term and does not know it yet. Its epoch is
      not the ledger's any more, and that is what :class:`ktrdr.operations.sql.fence.Fence` looks at.
    - ``on_change`` is called after each change of ``epoch``, inside the event loop.
    - ``leader`` is the newest term known, one's own or another's; None before the first.
    - After :meth:`resign` this backend leads no more and keeps nobody from leading; :meth:`run` may be called again.
    - News told by one are heard by the others (``on_news``), usually at once; what gets lost is found by looking.
    """

    def __init__(self, name: str, address: str | None = None) -> None:
        self.name = name
        self.address = address
        self.leader: Leader | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.on_news: Callable[[News], None] = lambda _: None
        self.decided = asyncio.Event()  # set once it was found out who leads
        self._epoch: int | None = None

    @property
    def epoch(self) -> int | None:
        return self._epoch

    @abstractmethod
    async def run(self) -> None:
        """Take part until cancelled or resigned; no failure of the ledger ends it."""

    @abstractmethod
    async def resign(self) -> None:
        """Lead no more, and let another lead at once. Idempotent."""

    @abstractmethod
    async def tell(self, news: News) -> None:
        """Tell the other backends; raises Unavailable while the ledger is away."""

    def _became(self, epoch: int | None) -> None:
        if epoch is not None:
            self.leader = Leader(epoch, self.name, self.address)
        if epoch != self._epoch:
            self._epoch = epoch
            self.on_change()
