"""Whose turn it is: the registry's index, so that choosing among ten thousand workers costs what it costs among ten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple, Protocol

from ktrdr.operations.model import WorkerType

__all__ = ["Candidate", "Standing", "Turns"]

_SPARE = 64  # entries that no longer count, before they are cleared away


class Standing(NamedTuple):
    """What matters of a worker for choosing one. ``free``: it may be chosen now; ``usable``: it takes work, or will
    when it is done; ``holds``: the operation it runs or is reserved for."""

    worker_type: WorkerType
    gpu: bool
    usable: bool
    free: bool
    holds: str | None


class Candidate(Protocol):
    """A worker as the index sees it. ``number`` tells workers of one turn apart: the order of registration."""

    turn: int
    number: int
    standing: Standing | None

    @property
    def worker_id(self) -> str: ...


_Entry = tuple[
    int, int, int, Candidate
]  # turn, number, a number of its own so that workers are not compared, worker


class Turns:
    """Counts of usable workers, and the free ones of each kind in the order of their turns.

    A queue may hold entries that no longer count; they are dropped when they come to its front, or all together when
    they outnumber the workers.
    """

    def __init__(self) -> None:
        self._queues: dict[tuple[WorkerType, bool], list[_Entry]] = {
            (kind, gpu): [] for kind in WorkerType for gpu in (False, True)
        }
        self._usable: Counter[tuple[WorkerType, bool]] = Counter()
        self._idle: Counter[tuple[WorkerType, bool]] = Counter()
        self._held: Counter[str] = Counter()
        self._known = self._entries = 0

    def note(self, worker: Candidate, now: Standing | None) -> None:
        """The worker's standing is ``now``; None: it is gone."""
        before, worker.standing = worker.standing, now
        if before == now:
            return
        if before is not None:
            self._count(before, -1)
        if now is not None:
            self._count(now, 1)
            if now.free:
                self._entries += 1
                entry = (worker.turn, worker.number, self._entries, worker)
                heappush(self._queues[now.worker_type, now.gpu], entry)
                self._tidy((now.worker_type, now.gpu))

    def _count(self, standing: Standing, by: int) -> None:
        self._known += by
        if standing.holds is not None:
            self._held[standing.holds] += by
            if not self._held[standing.holds]:
                del self._held[standing.holds]
        if standing.usable:
            key = (standing.worker_type, standing.gpu)
            self._usable[key] += by
            self._idle[key] += by * (standing.holds is None)

    def _tidy(self, key: tuple[WorkerType, bool]) -> None:
        queue = self._queues[key]
        if len(queue) > 2 * self._known + _SPARE:
            queue[:] = {id(entry[-1]): entry for entry in queue if _counts(entry, key)}.values()
            heapify(queue)

    def usable(self, kind: WorkerType, *, gpu: bool) -> int:
        """How many take work of this kind, or will; with ``gpu`` only those that have one."""
        return self._sum(self._usable, kind, gpu)

    def idle(self, kind: WorkerType, *, gpu: bool) -> int:
        """How many of the usable ones hold nothing, be they free or not to be chosen yet."""
        return self._sum(self._idle, kind, gpu)

    @staticmethod
    def _sum(counts: Counter[tuple[WorkerType, bool]], kind: WorkerType, gpu: bool) -> int:
        return counts[kind, True] + (0 if gpu else counts[kind, False])

    def holds(self, operation_id: str) -> bool:
        """Whether a worker runs the operation or is reserved for it."""
        return operation_id in self._held

    def first(self, kind: WorkerType, gpus: Iterable[bool], but: str | None) -> Candidate | None:
        """The free worker with the lowest turn among these with and without GPU, other than ``but``."""
        found: Candidate | None = None
        for gpu in gpus:
            worker = self._front((kind, gpu), but)
            if worker is not None and (
                found is None or (worker.turn, worker.number) < (found.turn, found.number)
            ):
                found = worker
        return found

    def _front(self, key: tuple[WorkerType, bool], but: str | None) -> Candidate | None:
        queue, passed = self._queues[key], None
        found: Candidate | None = None
        while queue:
            if not _counts(queue[0], key):
                heappop(queue)
            elif queue[0][-1].worker_id == but:
                passed = heappop(queue)
            else:
                found = queue[0][-1]
                break
        if passed is not None:
            heappush(queue, passed)
        return found


def _counts(entry: _Entry, key: tuple[WorkerType, bool]) -> bool:
    turn, worker = entry[0], entry[-1]
    standing = worker.standing
    return (
        standing is not None
        and standing.free
        and turn == worker.turn
        and (standing.worker_type, standing.gpu) == key
    )
