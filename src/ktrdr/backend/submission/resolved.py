"""What requests came to: the same request again means the same work, as long as the data it names is the same."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

__all__ = ["Resolved", "Stamp"]

W = TypeVar("W")
Stamp = tuple[int, int]
"""A folder's inode and the nanosecond of its last change."""
_REMEMBERED = 64
_SETTLED_NS = (
    3_000_000_000  # file systems stamp by the tick of a clock: two changes may look like one for so long
)


class Resolved(Generic[W]):
    """Remembers results with the stamps of what they were made from; ``stamp`` asks for a symbol's present one.

    A look costs a ``stat`` for each symbol. Nothing is remembered of data that changed a moment ago.
    """

    def __init__(self, stamp: Callable[[str], Stamp | None], clock: Callable[[], int] = time.time_ns) -> None:
        self._stamp, self._clock = stamp, clock
        self._known: OrderedDict[Hashable, tuple[Mapping[str, Stamp | None], W]] = OrderedDict()

    def get(self, key: Hashable) -> W | None:
        """What the key came to, if nothing has changed since."""
        found = self._known.get(key)
        if found is None:
            return None
        stamps, work = found
        if any(self._stamp(symbol) != stamp for symbol, stamp in stamps.items()):
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return work

    def put(self, key: Hashable, stamps: Mapping[str, Stamp | None], work: W) -> None:
        """Remember it. ``stamps`` are from before it was made."""
        now = self._clock()
        if all(stamp is not None and now - stamp[1] > _SETTLED_NS for stamp in stamps.values()):
            self._known[key] = (stamps, work)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
