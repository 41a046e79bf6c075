"""The laws of the control plane, checked at every change of the ledger and at everything somebody was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ktrdr.operations.events import (
    Assigned,
    CancelRequested,
    ChildDied,
    Event,
    Finished,
    LeaseExpired,
    NotMine,
    Refused,
    Released,
    Unreachable,
    WorkerLost,
)
from ktrdr.operations.machine import Transition
from ktrdr.operations.model import ModelRecord, Operation, OperationStatus, OperationType
from ktrdr.protocol.messages import DeliverRequest, OperationView
from ktrdr.settings import ControlSettings
from simulation.laws_checkpoints import CheckpointLaws
from simulation.laws_queue import QueueLaws
from simulation.laws_upkeep import UpkeepLaws
from simulation.passes import Passes
from simulation.trace import Trace, Violation
from simulation.virtual_time import Process

__all__ = ["Laws", "result_of"]

_AGES_S = 1e9
_SOON_S = 10.0
_OF_A_LEASE = 0.75  # a renewal may be on its way when the lease is found to have ended
_HELD = (OperationStatus.ASSIGNED, OperationStatus.RUNNING, OperationStatus.CANCELLING)
_LOSSES = (LeaseExpired, WorkerLost, NotMine, ChildDied)
_ORDINARY = {
    Assigned: "assigned",
    Refused: "refused",
    Unreachable: "unreachable",
    Released: "released",
    LeaseExpired: "lease expired",
    WorkerLost: "worker lost",
    NotMine: "not mine",
    ChildDied: "child died",
}
_WHILE_CANCELLING = {
    Finished: "result while cancelling",
    Released: "released while cancelling",
    WorkerLost: "worker lost while cancelling",
    LeaseExpired: "lease expired while cancelling",
}


def result_of(operation_id: str, attempt: int, worker_id: str, spec_digest: str) -> dict[str, Any]:
    """The summary that an attempt brings: it tells who made it, and of what."""
    return {"operation": operation_id, "attempt": attempt, "worker": worker_id, "spec": spec_digest}


class Laws:
    """Raises :class:`Violation` at the first broken law, and counts which situations occurred."""

    def __init__(self, trace: Trace, control: ControlSettings, report: Callable[[Violation], None]) -> None:
        self._trace, self._max_failures, self._report = trace, control.max_failures, report
        self._lease_s, self._renewed = (
            control.lease_s,
            dict[str, float](),
        )  # when, in time that nobody can set
        self.acknowledged: dict[str, str] = {}  # idempotency key: operation
        self.cancelled: set[str] = set()  # cancels that were acknowledged while the operation had not ended
        self.ended: dict[str, OperationStatus] = {}  # as somebody was told
        self.results: dict[str, int] = {}
        self.begun: dict[tuple[str, int], Process] = {}  # which process took up an attempt
        self.turned_away: set[tuple[str, int]] = set()  # attempts whose start was answered 401
        self.vouched: dict[tuple[str, int], float] = {}  # when a backend heard that an attempt runs
        self.quiet: dict[str, float] = {}  # since when nobody spoke for what is held; the longest first
        self.ledger_served_since: Callable[[], float] = lambda: 0.0
        self.leases_safe_until: Callable[[], float] = lambda: 0.0
        self.keys: dict[str, str] = {}
        self.checkpoints: CheckpointLaws
        self.passes: Passes
        self.upkeep: UpkeepLaws
        self.queue = QueueLaws(self)
        self._sent: dict[
            str, tuple[int, str]
        ] = {}  # operation: the newest attempt that a worker heard of, and where
        self.given_up: set[str] = (
            set()
        )  # keys under which a client was refused, and then asked for something else
        self.may_go: set[str] = set()  # operations that somebody asked to forget
        self.may_be_cancelled: set[str] = set()  # operations whose end somebody asked for
        self.cancels: dict[OperationType | None, float] = {}
        """Until when all of a type, or with None of every type, may be cancelled."""
        self.pending: dict[OperationType, dict[str, float]] = {kind: {} for kind in OperationType}
        """What waits and since when, the longest first."""
        self.find: Callable[[str], Operation | None] = lambda _: None

    def broken(self, law: str, message: str, operation_id: str | None = None) -> None:
        """Told to the world as well as raised, because code under test may swallow what is raised."""
        violation = Violation(law, message, operation_id)
        self._report(violation)
        raise violation

    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self._trace.now()

    def demand(self, good: bool, law: str, message: str, operation_id: str | None = None) -> None:
        if not good:
            self.broken(law, message, operation_id)

    # --- the ledger ---------------------------------------------------------------------------------------------

    def submitted(self, operation: Operation) -> None:
        name, key = operation.operation_id, operation.idempotency_key
        self._trace.tell(f"ledger: {name} submitted", name)
        self.pending[operation.operation_type][name] = self._trace.now()
        if key is not None:
            if self.keys.get(key) in self.may_go:  # a late duplicate, which nobody waits for
                self.given_up.add(key)
            self.demand(
                key not in self.keys or key in self.given_up,
                "one operation per key",
                f"{key} made {self.keys.get(key)} and {name}",
                name,
            )
            self.keys[key] = name
        self.checkpoints.submitted(operation)
        self.upkeep.submitted(operation)

    def deleted(self, operation: Operation) -> None:
        name = operation.operation_id
        self.demand(
            name in self.may_go, "an acknowledged operation is never missing", f"{name} was deleted", name
        )
        self.upkeep.left(operation)

    def expires(self, operation: Operation, before: datetime) -> None:
        self.upkeep.expires(operation, before)

    def answered(
        self, operation: Operation, position: int | None, waiting: Sequence[Operation] | None
    ) -> None:
        self.queue.answered(operation, position, waiting)

    def listed(self, model: ModelRecord) -> None:
        self.upkeep.listed(model)

    def changed(self, before: Operation, event: Event, transition: Transition) -> None:
        after, name = transition.operation, before.operation_id
        kind = type(event).__name__
        self._trace.tell(
            f"ledger: {name} {kind} {before.status}->{after.status} attempt {after.attempt} "
            f"failures {after.failures} {after.worker_id} ({transition.outcome})",
            name,
        )
        self._asked(before, event, transition)
        self._waits(before, after)
        self._fenced(before, event, transition)
        self._true(before, event, transition)
        self._final(before, after)
        self._numbers(before, event, after)
        self._ends(before, event, after)
        self._leases(before, event, after)
        self._progress(before, after)
        self.checkpoints.changed(before, event, after)
        self.passes.changed(after)
        self.upkeep.changed(before, after)
        self._count(before, event, transition)
        if after.status.terminal:
            self._forget(after)

    def _forget(self, ended: Operation) -> None:
        """Nothing is asked about its attempts any more; a million of them are too many to keep."""
        self._renewed.pop(ended.operation_id, None)
        self._sent.pop(ended.operation_id, None)
        for attempt in range(ended.attempt + 1):
            self.begun.pop((ended.operation_id, attempt), None)
            self.vouched.pop((ended.operation_id, attempt), None)
            self.turned_away.discard((ended.operation_id, attempt))

    def _asked(self, before: Operation, event: Event, transition: Transition) -> None:
        if not isinstance(event, CancelRequested) or transition.outcome == "ignored":
            return
        asked = before.operation_id in self.may_be_cancelled
        until = max(self.cancels.get(kind, 0.0) for kind in (None, before.operation_type))
        self.demand(
            asked or self._trace.now() < until,
            "nothing is cancelled that nobody asked for",
            f"a {before.status} {before.operation_type}",
            before.operation_id,
        )
        self.may_be_cancelled.discard(before.operation_id)

    def _waits(self, before: Operation, after: Operation) -> None:
        if before.status is after.status:
            return
        waiting = self.pending[after.operation_type]
        waiting.pop(after.operation_id, None)
        if after.status is OperationStatus.PENDING:
            waiting[after.operation_id] = self._trace.now()

    def _fenced(self, before: Operation, event: Event, transition: Transition) -> None:
        """Whatever speaks of an attempt counts only if that attempt is the newest, from the worker that has it."""
        if isinstance(event, Assigned | CancelRequested) or transition.outcome == "ignored":
            return
        told, newest = event.assignment, (before.worker_id, before.attempt)
        self.demand(
            (told.worker_id, told.attempt) == newest,
            "only the newest attempt counts",
            f"{type(event).__name__} of attempt {told.attempt} on {told.worker_id}, not {newest}",
            before.operation_id,
        )

    def _true(self, before: Operation, event: Event, transition: Transition) -> None:
        """What is said of a worker in its absence: who lives and has taken up an attempt did not refuse or forget it."""
        attempt = before.operation_id, before.attempt
        told = transition.outcome == "changed" and isinstance(event, Refused | NotMine)
        # The start may have come after the cancel; a copy of it may be let in after another was turned away, for a worker
        # learns its credential between them: it works for nothing then, and hears that at its report.
        if told and before.status is not OperationStatus.CANCELLING and attempt not in self.turned_away:
            worker = self.begun.get(attempt)
            self.demand(
                worker is None or not worker.alive,
                "who took up an attempt is asked for its end",
                f"{type(event).__name__}, but {worker.name if worker else ''} has it",
                before.operation_id,
            )

    def _final(self, before: Operation, after: Operation) -> None:
        if before.status.terminal:
            same = all(
                getattr(before, field) == getattr(after, field)
                for field in (
                    "status",
                    "attempt",
                    "worker_id",
                    "instance_id",
                    "summary",
                    "artifacts",
                    "error",
                    "completed_at",
                    "progress",
                    "failures",
                )
            )
            self.demand(
                same, "terminal is final", f"{before.status} became {after.status}", before.operation_id
            )

    def _numbers(self, before: Operation, event: Event, after: Operation) -> None:
        name = before.operation_id
        grows = int(isinstance(event, Assigned) and before.status is OperationStatus.PENDING)
        self.demand(
            after.attempt == before.attempt + grows,
            "attempts grow by one",
            f"{before.attempt} became {after.attempt} at {type(event).__name__}",
            name,
        )
        lost = after.failures - before.failures
        counts = isinstance(event, _LOSSES) and after.status is not before.status
        counts = counts and before.status is not OperationStatus.CANCELLING
        self.demand(
            lost == 1 or not counts,
            "failures count losses",
            f"{before.failures} became {after.failures} at {type(event).__name__}",
            name,
        )
        self.demand(
            lost in (0, 1) and (lost == 0 or isinstance(event, _LOSSES)),
            "failures count losses",
            f"{before.failures} became {after.failures} at {type(event).__name__}",
            name,
        )
        self.demand(
            after.failures < self._max_failures or after.status.terminal,
            "failures within the limit",
            f"{after.failures} failures and {after.status}",
            name,
        )

    def _ends(self, before: Operation, event: Event, after: Operation) -> None:
        name = before.operation_id
        if before.status.terminal or not after.status.terminal:
            return
        if name in self.cancelled or before.status is OperationStatus.CANCELLING:
            self.demand(
                after.status is OperationStatus.CANCELLED,
                "cancel acknowledged, so cancelled",
                f"it ended {after.status}",
                name,
            )
            self.demand(
                after.summary is None, "a cancelled operation has no result", f"{after.summary}", name
            )
        asked = isinstance(event, CancelRequested) or before.status is OperationStatus.CANCELLING
        self.demand(
            asked or after.status is not OperationStatus.CANCELLED,
            "nobody is cancelled unasked",
            f"{type(event).__name__} ended it",
            name,
        )
        if after.status is OperationStatus.COMPLETED:
            self.results[name] = self.results.get(name, 0) + 1
            self.demand(self.results[name] == 1, "one accepted result", "a second one was accepted", name)
            made = {k: v for k, v in (after.summary or {}).items() if k not in ("model_id", "strategy")}
            expected: dict[str, Any] = result_of(
                name, after.attempt, after.worker_id or "", after.spec_digest
            )
            self.demand(
                made == expected, "the result is that of the newest attempt", f"{made}, not {expected}", name
            )
            progress = after.progress
            self.demand(
                progress is not None and progress.percentage == 100.0,
                "completed is 100 %",
                f"{progress}",
                name,
            )

    def _leases(self, before: Operation, event: Event, after: Operation) -> None:
        name = before.operation_id
        if after.status in _HELD:
            self.demand(
                after.lease_expires_at is not None, "who holds has a lease", f"{after.status} has none", name
            )
        late = self._trace.now()
        if isinstance(event, LeaseExpired) and after.status is not before.status:
            end, safe = self._renewed[name] + self._lease_s, self.leases_safe_until()
            self.demand(late >= end, "no lease ends early", f"{late} is before {end}", name)
            self.demand(
                late >= safe, "no lease ends within a period of a restart", f"{late} is before {safe}", name
            )
            heard = self.vouched.get((name, before.attempt), -_AGES_S)
            served = self.ledger_served_since() < heard - _SOON_S  # else a renewal may not have been written
            self.demand(
                late - heard >= _OF_A_LEASE * self._lease_s or not served,
                "no lease ends early",
                f"its worker vouched for it at {heard}",
                name,
            )
        if after.lease_expires_at != before.lease_expires_at:
            self._renewed[name] = late
            self.quiet.pop(name, None)
            if after.status in _HELD:
                self.quiet[name] = late

    def _progress(self, before: Operation, after: Operation) -> None:
        if after.attempt != before.attempt or before.progress is None:
            return
        now = -1.0 if after.progress is None else after.progress.percentage
        self.demand(
            now >= before.progress.percentage,
            "progress never goes back within an attempt",
            f"{before.progress.percentage} became {now}",
            before.operation_id,
        )

    def _count(self, before: Operation, event: Event, transition: Transition) -> None:
        after, seen = transition.operation, self._trace.situations
        if transition.outcome == "ignored":
            if isinstance(event, Finished) and before.attempt > 0:
                seen["late result ignored"] += 1
            return
        if (word := _ORDINARY.get(type(event))) is not None:
            seen[word] += 1
        if after.status is OperationStatus.FAILED and isinstance(event, LeaseExpired | WorkerLost | NotMine):
            seen["given up"] += 1
        if before.status is OperationStatus.PENDING and after.status is OperationStatus.RUNNING:
            seen["adopted"] += 1
        if before.status is OperationStatus.ASSIGNED and after.status is OperationStatus.RUNNING:
            seen["accepted"] += 1
        if before.status is OperationStatus.CANCELLING and type(event) in _WHILE_CANCELLING:
            seen[_WHILE_CANCELLING[type(event)]] += 1
        if after.status.terminal and not isinstance(event, CancelRequested):
            seen[str(after.status)] += 1

    def just_renewed(self, operation_id: str) -> bool:
        """Whether a lease was written in this very moment."""
        return self._renewed.get(operation_id) == self._trace.now()

    def vouch(self, operation_id: str, attempt: int) -> None:
        """A backend heard that an attempt runs."""
        now = self._trace.now()
        self.vouched[operation_id, attempt] = now
        record = self.find(operation_id)
        if operation_id in self.quiet and record is not None and record.attempt == attempt:
            del self.quiet[operation_id]
            self.quiet[operation_id] = now

    def dispatched(self, operation_id: str, attempt: int, where: str) -> None:
        """A worker is told to start an attempt; it may be told again, another may not."""
        newest, there = self._sent.get(operation_id, (0, where))
        if attempt >= newest:
            self._sent[operation_id] = attempt, where
        self.demand(
            attempt != newest or where == there,
            "an attempt goes to one worker",
            f"attempt {attempt} went to {there} and goes to {where}",
            operation_id,
        )

    # --- what somebody was told ---------------------------------------------------------------------------------

    def told_submitted(self, key: str, operation_id: str) -> None:
        """A client got its 202."""
        self._trace.tell(f"client: {key} is {operation_id}", operation_id)
        if key in self.acknowledged:
            self._trace.situations["submission repeated"] += 1
        earlier = self.acknowledged.setdefault(key, operation_id)
        self.demand(
            earlier == operation_id,
            "same key, same operation",
            f"{key}: {earlier}, then {operation_id}",
            operation_id,
        )
        self.demand(
            self.find(operation_id) is not None,
            "an acknowledged operation is never missing",
            "the 202 came before the record",
            operation_id,
        )

    def told_cancelled(self, operation_id: str, view: OperationView) -> None:
        """A client got its 202 for a cancel."""
        self._trace.tell(f"client: cancel of {operation_id} acknowledged, {view.status}", operation_id)
        if view.status in (OperationStatus.COMPLETED, OperationStatus.FAILED):
            return
        self.cancelled.add(operation_id)
        record = self.find(operation_id)
        good = record is not None and record.status in (OperationStatus.CANCELLING, OperationStatus.CANCELLED)
        self.demand(
            good,
            "cancel acknowledged, so cancelled",
            f"the ledger says {record.status if record else 'nothing'}",
            operation_id,
        )

    def told_state(self, operation_id: str, view: OperationView) -> None:
        """A client looked."""
        was = self.ended.get(operation_id)
        self.demand(
            was in (None, view.status), "terminal is final", f"told {was}, then {view.status}", operation_id
        )
        if view.status.terminal:
            self.ended[operation_id] = view.status

    def told_result(self, operation_id: str, view: OperationView, strategy: str) -> None:
        """A client reads the result of what it asked for."""
        made_of = (view.result_summary or {}).get("strategy")
        self.demand(
            made_of == strategy,
            "the result is that of what was asked for",
            f"of {made_of}, not {strategy}",
            operation_id,
        )

    def told_missing(self, operation_id: str) -> None:
        """A client was told that an operation it has a 202 for does not exist, though nobody may have removed it."""
        self.broken("an acknowledged operation is never missing", "404", operation_id)

    def told_delivered(self, worker_id: str, delivery: DeliverRequest) -> None:
        """A worker was told that it may forget a result."""
        name = delivery.operation_id
        self._trace.tell(f"{worker_id}: delivery of attempt {delivery.attempt} acknowledged", name)
        record = self.find(name)
        if record is None and name in self.may_go:
            return
        self.demand(record is not None, "an acknowledged operation is never missing", "at a delivery", name)
        assert record is not None
        if delivery.checkpoint_digest is not None:
            self.checkpoints.told(name, delivery.attempt, delivery.checkpoint_digest)
        newest = (record.worker_id, record.attempt) == (worker_id, delivery.attempt)
        self.demand(
            not newest or record.status not in _HELD,
            "an acknowledged delivery is durable",
            f"{delivery.status} was acknowledged, and the ledger says {record.status}",
            name,
        )
