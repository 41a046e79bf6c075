"""The laws of what goes with time: operations that ended long ago, and files that nothing refers to."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ktrdr.operations.model import ModelRecord, Operation
from simulation.upkeep import GRACE_S, RETENTION_S

if TYPE_CHECKING:
    from simulation.laws import Laws

__all__ = ["UpkeepLaws"]

_CLOCKS_S = 250.0  # between the clock of a backend and the right one, which is that of the files


class UpkeepLaws:
    """Keeps what is named by whom. ``gone`` counts what retention removed, by its end."""

    def __init__(self, laws: Laws, seen: Counter[str]) -> None:
        self._laws, self._seen = laws, seen
        self._named: defaultdict[str, set[str]] = defaultdict(set)  # digest: operations
        self._models: set[str] = set()
        self.gone: Counter[str] = Counter()

    def submitted(self, operation: Operation) -> None:
        self._name(operation, set.add)

    def changed(self, before: Operation, after: Operation) -> None:
        if before.checkpoints != after.checkpoints or before.artifacts != after.artifacts:
            self._name(before, set.discard)
            self._name(after, set.add)

    def listed(self, model: ModelRecord) -> None:
        """Models stay, whatever becomes of the operation that made them."""
        self._models.add(model.bundle_digest)

    def left(self, operation: Operation) -> None:
        """An operation was deleted."""
        self._name(operation, set.discard)

    def _name(self, operation: Operation, change: object) -> None:
        for digest in (*operation.checkpoints, *operation.artifacts.values()):
            names = self._named[digest]
            change(names, operation.operation_id)  # type: ignore[operator]
            if not names:
                del self._named[digest]

    # --- what goes ----------------------------------------------------------------------------------------------

    def asked(self, before: datetime, now: datetime) -> None:
        """A backend orders ``now`` that all goes which ended ``before``."""
        self._laws.demand(
            before <= now - timedelta(seconds=RETENTION_S - _CLOCKS_S),
            "retention removes what is old enough",
            f"what ended before {before} at {now}",
        )

    def expires(self, operation: Operation, before: datetime) -> None:
        """The ledger is about to forget it for its age."""
        name, ended = operation.operation_id, operation.completed_at
        self._laws.demand(
            operation.status.terminal, "retention removes what has ended", f"it is {operation.status}", name
        )
        self._laws.demand(
            ended is not None and ended < before,
            "retention removes what is old enough",
            f"it ended at {ended}, not before {before}",
            name,
        )
        self._laws.may_go.add(name)
        self._seen["operation expired"] += 1
        self.gone[str(operation.status)] += 1

    def collected(self, digest: str, age_s: float) -> None:
        """A file is about to be removed that was last stored or asked for so long ago."""
        names = sorted(self._named.get(digest, ()))
        self._laws.demand(
            not names and digest not in self._models,
            "what is referred to is not collected",
            f"{digest[:12]}, of {names or 'a model'}",
            names[0] if names else None,
        )
        self._laws.demand(
            age_s >= GRACE_S - _CLOCKS_S,
            "what is new is not collected",
            f"{digest[:12]} was asked for {age_s:.0f} s ago",
        )
        self._seen["artifact collected"] += 1
