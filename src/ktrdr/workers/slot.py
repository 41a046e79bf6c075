"""One operation at a time: who may start, and what has been run here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ktrdr.errors import Conflict, NotFound, WorkerBusy
from ktrdr.protocol.messages import DeliverRequest
from ktrdr.workers.host import Run

__all__ = ["Entry", "Slot"]

_REMEMBERED = 50


@dataclass(slots=True)
class Entry:
    """A run and, once it has ended, how and when."""

    run: Run
    ending: DeliverRequest | None = None
    ended_at: datetime | None = None
    delivery: Literal["none", "sending", "waiting", "done"] = "none"


class Slot:
    """The worker's one place for work. For one event loop: nothing here awaits, so each method is atomic."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        # those of them whose end the backend may not know, in the same order
        self._owed: dict[str, Entry] = {}
        self.current: Entry | None = None
        self.closed = False

    def take(self, operation_id: str, attempt: int, begin: Callable[[], Run]) -> Run:
        """Reserve the place and begin, in one step; the same attempt again gives the same run.

        Raises
        ------
        Conflict
            If a newer attempt of this operation was started here already.
        WorkerBusy
            If another run holds the place, or this worker takes no more work.
        """
        known = self._entries.get(operation_id)
        if known is not None and attempt < known.run.attempt:
            raise Conflict(
                f"Attempt {attempt} of {operation_id} is outdated: attempt {known.run.attempt} was started here."
            )
        if known is not None and attempt == known.run.attempt:
            return known.run
        if self.closed:
            raise WorkerBusy("This worker is shutting down and takes no more work.")
        if self.current is not None:
            held = self.current.run
            raise WorkerBusy(
                f"This worker runs {held.operation_id} (attempt {held.attempt}); it does one operation at a time.",
                retry_after_s=1.0,
            )
        self.current = Entry(begin())
        self._remember(operation_id, self.current)
        return self.current.run

    def leave(self, run: Run, ending: DeliverRequest, now: datetime) -> Entry:
        """The run has ended: the place is free from here on."""
        entry = self.current
        assert entry is not None
        assert entry.run is run
        entry.ending, entry.ended_at = ending, now
        self.current = None
        return entry

    def entry(self, operation_id: str) -> Entry:
        """What is known of an operation.

        Raises
        ------
        NotFound
            If it never ran here, or so long ago that it is forgotten.
        """
        try:
            return self._entries[operation_id]
        except KeyError:
            raise NotFound("operation", operation_id, hint="This worker does not run it") from None

    def newest_first(self) -> Iterator[Entry]:
        """All that is remembered."""
        return reversed(self._entries.values())

    def visible(self) -> Entry | None:
        """What a probe should hear of: the run, else the newest whose end the backend does not know yet.

        So the backend does not take an operation for lost whose result is on its way.
        """
        if self.current is not None:
            return self.current
        for entry in reversed(self._owed.values()):
            if entry.delivery in ("sending", "waiting"):
                return entry
        return None

    def sent(self, entry: Entry, *, acknowledged: bool) -> None:
        """A report came back, or did not; an end that went along with a registration meanwhile stays acknowledged."""
        if entry.delivery == "sending":
            entry.delivery = "done" if acknowledged else "waiting"
            if acknowledged:
                self._known(entry)

    def acknowledged(self, key: str) -> None:
        """The backend has the end of ``operation_id:attempt``."""
        operation_id, _, attempt = key.rpartition(":")
        entry = self._entries.get(operation_id)
        if entry is not None and entry.ending is not None and str(entry.run.attempt) == attempt:
            entry.delivery = "done"
            self._known(entry)

    def _known(self, entry: Entry) -> None:
        if self._owed.get(entry.run.operation_id) is entry:
            del self._owed[entry.run.operation_id]

    def _remember(self, operation_id: str, entry: Entry) -> None:
        self._entries.pop(operation_id, None)
        self._owed.pop(operation_id, None)
        self._entries[operation_id] = self._owed[operation_id] = entry
        while len(self._entries) > _REMEMBERED:
            forgotten, _ = self._entries.popitem(last=False)
            self._owed.pop(forgotten, None)
