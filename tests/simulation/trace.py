"""What happened, as lines: a digest of all of them, and the last ones of each operation for the story."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

__all__ = ["Trace", "Violation"]

_KEPT = 60
_HASHED_AT_ONCE = 500
_STORIES = 20_000  # of the operations that were heard of last


class Violation(AssertionError):
    """A law was broken. ``operation_id`` says whose story is to be told, None for the last events of all."""

    def __init__(self, law: str, message: str, operation_id: str | None = None) -> None:
        super().__init__(f"{law}: {message}")
        self.law, self.message = law, message
        self.operation_id = operation_id

    def __reduce__(self) -> tuple[type[Violation], tuple[str, str, str | None]]:
        return Violation, (self.law, self.message, self.operation_id)


class Trace:
    """Every event goes into ``digest``; ``faults`` and ``situations`` count what occurred."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.now = time
        self._hash = hashlib.sha256()
        self._unhashed: list[str] = []
        self._stories: OrderedDict[str, deque[str]] = OrderedDict()
        self._last: deque[str] = deque(maxlen=_KEPT)
        self._everywhere: deque[str] = deque(maxlen=_KEPT)
        self.events = 0
        self.faults: Counter[str] = Counter()
        self.situations: Counter[str] = Counter()

    def tell(self, text: str, operation_id: str | None = None) -> None:
        """One event; with ``operation_id`` it belongs to that operation's story."""
        line = f"{self.now():12.6f} {text}"
        self.events += 1
        self._unhashed.append(line)
        if len(self._unhashed) == _HASHED_AT_ONCE:
            self._digest()
        self._last.append(line)
        if operation_id is not None:
            story = self._stories.get(operation_id)
            if story is None:
                story = self._stories[operation_id] = deque(maxlen=_KEPT)
                if len(self._stories) > _STORIES:
                    self._stories.popitem(last=False)
            story.append(line)

    def _digest(self) -> None:
        self._unhashed.append("")  # a line end after the last, too
        self._hash.update("\n".join(self._unhashed).encode())
        self._unhashed.clear()

    def fault(self, name: str, text: str, operation_id: str | None = None) -> None:
        """A fault that really fired."""
        self.faults[name] += 1
        self.tell(f"FAULT {name}: {text}", operation_id)
        if operation_id is None:
            self._everywhere.append(f"{self.now():12.6f} FAULT {name}: {text}")

    @property
    def digest(self) -> str:
        self._digest()
        return self._hash.hexdigest()

    def story(self, operation_id: str | None) -> list[str]:
        """The operation's events among the faults that hit machines, or the last events of all."""
        if operation_id is None or operation_id not in self._stories:
            return list(self._last)
        own = list(self._stories[operation_id])
        first = own[0][:12]
        return sorted(
            [*own, *(line for line in self._everywhere if line[:12] >= first)], key=lambda s: s[:12]
        )
