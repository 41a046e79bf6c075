"""The laws of checkpoints: what is recorded, from where an attempt goes on, what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ktrdr.operations.events import Event, Released
from ktrdr.operations.model import Operation
from simulation.shelf import Shelf

if TYPE_CHECKING:
    from simulation.laws import Laws

__all__ = ["CheckpointLaws"]

_COMMIT_S = 90.0  # with a slow ledger and a backend that stands still, between a look at a file and what is written of it


class CheckpointLaws:
    """Looks at each change of an operation's checkpoints, and at each attempt that begins."""

    def __init__(self, laws: Laws, shelf: Shelf, seen: Counter[str]) -> None:
        self._laws, self._shelf, self._seen = laws, shelf, seen
        self._acknowledged: dict[str, tuple[str, int]] = {}
        """Operation: the newest that its worker may rely on."""
        self._given_up: dict[str, set[str]] = {}
        """Operation: what an attempt of it that was the newest found damaged."""
        shelf.on_delete = self._deleted

    def submitted(self, operation: Operation) -> None:
        """An operation that was resumed begins with its parent's."""
        newest = operation.checkpoint_digest
        if newest is None:
            return
        self._seen["resumed with a checkpoint"] += 1
        damaged = [digest[:12] for digest in operation.checkpoints if not self._verified(digest)]
        self._laws.demand(
            not damaged, "what is resumed goes on from whole files", f"{damaged}", operation.operation_id
        )
        self._acknowledged[operation.operation_id] = newest, self._shelf.made[newest].done

    def changed(self, before: Operation, event: Event, after: Operation) -> None:
        newest, name = after.checkpoint_digest, before.operation_id
        if after.status.terminal:
            self._acknowledged.pop(name, None)
            self._given_up.pop(name, None)
        if newest is None or newest in before.checkpoints:
            return
        made = self._shelf.made.get(newest)
        self._laws.demand(
            made is not None, "a checkpoint is recorded once its file is here", newest[:12], name
        )
        assert made is not None
        self._laws.demand(
            self._verified(newest), "a checkpoint is recorded once it is verified", f"{made}", name
        )
        self._laws.demand(
            (made.operation_id, made.attempt) == (name, before.attempt),
            "only the newest attempt's checkpoints count",
            f"{made}, and attempt {before.attempt} is the newest",
            name,
        )
        last = before.checkpoint_digest
        self._seen["news of checkpoints out of order"] += (
            last is not None and made.done < self._shelf.made[last].done
        )
        self._seen["checkpoint recorded"] += 1
        self._seen["released with a checkpoint"] += isinstance(event, Released)

    def _verified(self, digest: str) -> bool:
        return self._shelf.was_verified(digest, _COMMIT_S)

    def told(self, operation_id: str, attempt: int, digest: str) -> None:
        """A worker was told that the backend has a checkpoint, and not to stop."""
        record = self._laws.find(operation_id)
        if record is None or record.attempt != attempt or record.status.terminal:
            return
        self._laws.demand(
            digest in record.checkpoints,
            "an acknowledged checkpoint is recorded",
            f"{digest[:12]} of attempt {attempt}, not in {record.checkpoints}",
            operation_id,
        )
        self._acknowledged[operation_id] = digest, self._shelf.made[digest].done

    def begun(self, operation_id: str, attempt: int, used: str, first: int, refused: Sequence[str]) -> None:
        """An attempt begins after ``first`` steps, from the checkpoint ``used``, having found ``refused`` damaged."""
        record = self._laws.find(operation_id)
        self._seen["torn checkpoint skipped"] += bool(refused)
        if used:
            self._seen["went on from a checkpoint"] += 1
            made = self._shelf.made[used]
            parent = None if record is None else record.parent_operation_id
            self._laws.demand(
                made.operation_id in (operation_id, parent),
                "an attempt goes on from its own operation's checkpoint",
                f"it took {made}",
                operation_id,
            )
            self._laws.demand(
                self._shelf.whole(used) and made.done == first,
                "an attempt goes on from what was verified",
                f"it begins after {first} with {made}, {self._shelf.whole(used)=}",
                operation_id,
            )
        if record is None or record.attempt != attempt:
            return  # an old order that a worker heard late: it comes to nothing
        digest, done = self._acknowledged.get(operation_id, ("", 0))
        # What was found damaged leaves the record for good, and a late copy of its upload may then make it whole again.
        left = digest in self._given_up.get(operation_id, ()) and digest not in record.checkpoints
        self._laws.demand(
            first >= done or left or not self._shelf.whole(digest),
            "acknowledged work is not done again",
            f"it begins after {first}, and {digest[:12]} is whole and after {done}",
            operation_id,
        )
        if refused and not record.status.terminal:
            self._given_up.setdefault(operation_id, set()).update(refused)

    def _deleted(self, digest: str) -> None:
        made = self._shelf.made.get(digest)
        record = None if made is None else self._laws.find(made.operation_id)
        self._laws.demand(
            record is None or digest not in record.checkpoints,
            "a checkpoint stays for as long as it is needed",
            f"{made} was removed",
            None if made is None else made.operation_id,
        )
