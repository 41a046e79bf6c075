"""Changes of operations that are made together: read in one go, stepped in memory, written in one go.

What waits at the writer is one :class:`Unit`: whoever asked for two hundred changes at once pays for a handful of
statements. The pieces keep their order; one that is refused changes nothing and harms no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ktrdr.errors import NotLeader
from ktrdr.operations.events import Assigned, Event
from ktrdr.operations.machine import Transition, new_operation, step
from ktrdr.operations.model import ModelRecord, NewOperation, Operation, OperationStatus
from ktrdr.operations.refusals import id_taken, same_submission
from ktrdr.operations.rows import operation_from_row, row_of_model, row_of_operation
from ktrdr.operations.sql.fence import Fence
from ktrdr.operations.sql.queries import in_status
from ktrdr.operations.sql.roundtrips import unanswered
from ktrdr.operations.sql.tables import models, operations, specs
from ktrdr.operations.sql.tally import Tally
from ktrdr.operations.store import Claim, absent

__all__ = ["Apply", "Change", "Claims", "Outcome", "Submit", "Unit", "save_model"]

Outcome = tuple[Any, BaseException | None]
"""What a piece came to: its result, or the error it raised."""


@dataclass(frozen=True, slots=True)
class Submit:
    """A new operation, at once assigned if ``assign`` is given. Its result is the operation."""

    new: NewOperation
    now: datetime
    assign: Assigned | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """An event. Its result is the transition."""

    operation_id: str
    event: Event
    now: datetime
    model: ModelRecord | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """Pending operations for free workers. Its result is a transition for each, None for what is not to be had."""

    claims: tuple[Claim, ...]
    now: datetime


Change = Submit | Apply | Claims


class Unit:
    """One transaction's worth of changes.

    Laws
    ----
    - Rows that events are for are locked before they are read, in the order of their ids: two writers never wait for
      each other. Rows that are claimed and held by somebody else are passed over.
    - What only the leader of several backends may change is refused to the others (``fence``).
    - Each piece sees what the pieces before it did.
    - What is written last are the counts, so that other writers wait for them least.
    """

    def __init__(self, connection: Connection, max_failures: int, fence: Fence | None = None) -> None:
        self._connection = connection
        self._fence = fence
        self._max_failures = max_failures
        self._known: dict[str, Operation] = {}
        self._keys: dict[str, str] = {}
        self._new: dict[str, NewOperation] = {}
        self._touched: dict[str, Operation] = {}  # as it was
        self._models: dict[str, ModelRecord] = {}

    def perform(self, changes: Sequence[Change]) -> list[Outcome]:
        """Make them; the outcome of each, in their order. Raises what the database does, and then nothing is made."""
        refusal = self._refusal(changes)
        self._read(changes)
        outcomes: list[Outcome] = []
        for change in changes:
            try:
                if refusal is not None and _guarded(change):
                    raise refusal
                outcomes.append((self._make(change), None))
            except Exception as error:  # refused in memory: nothing of this piece was noted down
                outcomes.append((None, error))
        with unanswered(self._connection):
            self._write()
        return outcomes

    def _refusal(self, changes: Sequence[Change]) -> NotLeader | None:
        """Why what only the leader may change is not changed; the look at the fence is one for all of them."""
        if self._fence is not None and any(map(_guarded, changes)):
            try:
                self._fence.admit(self._connection)
            except NotLeader as error:
                return error
        return None

    # --- reading ------------------------------------------------------------------------------------------------

    def _read(self, changes: Sequence[Change]) -> None:
        events = {change.operation_id for change in changes if isinstance(change, Apply)}
        submitted = [change.new for change in changes if isinstance(change, Submit)]
        claimed = {c.operation_id for change in changes if isinstance(change, Claims) for c in change.claims}
        keys = [new.idempotency_key for new in submitted if new.idempotency_key is not None]
        if events:
            self._learn(_LOCKED, ids=list(events))
        if claimed:
            self._learn(_FREE, ids=list(claimed))
        if keys:
            self._learn(_SAME, ids=[new.operation_id for new in submitted], keys=keys)
        elif submitted:
            self._learn(_NAMED, ids=[new.operation_id for new in submitted])

    def _learn(self, query: Select[Any], **named: list[str]) -> None:
        for row in self._connection.execute(query, named).mappings():
            operation = operation_from_row(row)
            self._known.setdefault(operation.operation_id, operation)
            if operation.idempotency_key is not None:
                self._keys[operation.idempotency_key] = operation.operation_id

    # --- making -------------------------------------------------------------------------------------------------

    def _make(self, change: Change) -> Operation | Transition | list[Transition | None]:
        match change:
            case Submit(new, now, assign):
                return self._submit(new, now, assign)
            case Apply(operation_id, event, now, model):
                return self._apply(operation_id, event, now, model)
            case Claims(claims, now):
                return [self._claim(claim, now) for claim in claims]

    def _submit(self, new: NewOperation, now: datetime, assign: Assigned | None) -> Operation:
        operation = new_operation(new, now)
        key = new.idempotency_key
        if key is not None and (earlier := self._keys.get(key)) is not None:
            return same_submission(self._known[earlier], operation)
        if new.operation_id in self._known:
            raise id_taken(new.operation_id)
        if assign is not None:
            operation = step(operation, assign, now, max_failures=self._max_failures).operation
        self._known[new.operation_id] = operation
        self._new[new.operation_id] = new
        if key is not None:
            self._keys[key] = new.operation_id
        return operation

    def _apply(self, operation_id: str, event: Event, now: datetime, model: ModelRecord | None) -> Transition:
        before = self._known.get(operation_id)
        if before is None:
            raise absent(operation_id)
        transition = step(before, event, now, max_failures=self._max_failures)
        if operation_id not in self._new:
            self._touched.setdefault(operation_id, before)
        self._known[operation_id] = transition.operation
        if model is not None and model.is_result_of(transition.operation):
            self._models[model.model_id] = model
        return transition

    def _claim(self, claim: Claim, now: datetime) -> Transition | None:
        known = self._known.get(claim.operation_id)
        if known is None or known.status is not OperationStatus.PENDING:
            return None
        return self._apply(claim.operation_id, claim.event, now, None)

    # --- writing ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        tally = Tally()
        if self._new:
            self._insert(tally)
        if self._touched:
            rows = [self._moved(tally, before) for _, before in sorted(self._touched.items())]
            self._connection.execute(_UPDATE, rows)
        for model in self._models.values():
            save_model(self._connection, model)
        tally.write(self._connection)

    def _moved(self, tally: Tally, before: Operation) -> dict[str, Any]:
        after = self._known[before.operation_id]
        tally.move(before, after)
        row = row_of_operation(after)
        return {f"_{name}": row[name] for name in row if name not in _FIXED[1:]}

    def _insert(self, tally: Tally) -> None:
        rows, contents = [], {}
        for operation_id, new in self._new.items():
            operation = self._known[operation_id]
            tally.add(operation)
            rows.append(row_of_operation(operation))
            contents[operation.spec_digest] = new.spec
        once = _ONCE[self._connection.dialect.name]
        self._connection.execute(once, [{"digest": d, "content": c} for d, c in sorted(contents.items())])
        self._connection.execute(_INSERT, sorted(rows, key=_insertion))


def _guarded(change: Change) -> bool:
    match change:
        case Submit(assign=assign):
            return assign is not None
        case Apply(event=event):
            return Fence.guards(event)
        case Claims():
            return True


def _insertion(row: Mapping[str, Any]) -> tuple[str, str]:
    """Everybody inserts keys in one order, so that two writers with the same keys never wait for each other."""
    return row["idempotency_key"] or "", row["operation_id"]


def save_model(connection: Connection, model: ModelRecord) -> None:
    """Write a model, over an earlier one of its id."""
    connection.execute(delete(models).where(models.c.model_id == model.model_id))
    connection.execute(insert(models), row_of_model(model))


_named = operations.c.operation_id.in_(bindparam("ids", expanding=True))
_NAMED = select(operations).where(_named)
_LOCKED = _NAMED.order_by(operations.c.operation_id).with_for_update()
_FREE = _NAMED.where(in_status(OperationStatus.PENDING)).with_for_update(skip_locked=True)
_SAME = select(operations).where(
    or_(_named, operations.c.idempotency_key.in_(bindparam("keys", expanding=True)))
)
_INSERT = insert(operations)
_ONCE: Mapping[str, Any] = {
    "postgresql": postgresql.insert(specs).on_conflict_do_nothing(),
    "sqlite": sqlite.insert(specs).on_conflict_do_nothing(),
}
_FIXED = (
    "operation_id",
    "operation_type",
    "created_us",
    "spec_digest",
    "parent_operation_id",
    "idempotency_key",
    "request_digest",
    "requirements",
    "requires_gpu",
)
_values: dict[Any, Any] = {
    column: bindparam(f"_{column.name}")
    for column in operations.columns
    if column.name not in (*_FIXED, "compacted")
}
_UPDATE = (
    update(operations)
    .where(operations.c.operation_id == bindparam("_operation_id"))
    .values({**_values, operations.c.compacted: 0})  # a story that was one line may have more now
)
