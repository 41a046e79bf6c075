"""Random lives of operations: whatever happens in whatever order, the promises hold."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidTransition
from ktrdr.operations.events import (
    Assigned,
    CancelRequested,
    ChildDied,
    Event,
    Finished,
    LeaseExpired,
    Progressed,
    Released,
    WorkerLost,
)
from ktrdr.operations.machine import EVENTS, step
from ktrdr.operations.model import Assignment, Operation, OperationStatus
from ktrdr.operations.progress import Progress
from ktrdr.operations.story import STORY_LINES
from ktrdr.testing.operations import T0, an_event, an_operation, an_outcome

ENDS = [OperationStatus.COMPLETED, OperationStatus.FAILED, OperationStatus.CANCELLED]
happening = st.tuples(
    st.sampled_from([*EVENTS, Assigned, Progressed, Assigned, Progressed]),  # lives that get somewhere
    st.sampled_from([0, 0, 0, 0, 1, 2]),  # how many attempts old the message is
    st.integers(0, 20),  # progress
    st.sampled_from(ENDS),
    st.booleans(),
    st.integers(0, 90),  # seconds that pass
)


def event_of(operation: Operation, choice: tuple, now: datetime) -> Event:
    kind, age, done, end, flag, _ = choice
    assignment = operation.assignment or Assignment("worker-1", "instance-1", 1)
    if age:
        assignment = Assignment(assignment.worker_id, assignment.instance_id, assignment.attempt - age)
    changes = {
        Progressed: {"progress": Progress(done, 20)},
        Finished: {"outcome": an_outcome(end), "progress": Progress(done, 20) if flag else None},
        Released: {"progress": Progress(done, 20) if flag else None},
        LeaseExpired: {"lease_expires_at": now if flag else operation.lease_expires_at},
        ChildDied: {"out_of_memory": flag, "progress": Progress(done, 20)},
    }
    return an_event(kind, assignment, now, **changes.get(kind, {}))


@settings(max_examples=150, deadline=None)
@given(st.lists(happening, max_size=60), st.integers(1, 4))
def test_whatever_happens_the_promises_hold(choices: list[tuple], max_failures: int) -> None:
    operation, now = an_operation(), T0
    cancel_acknowledged = False
    for choice in choices:
        now += timedelta(seconds=choice[-1])
        event = event_of(operation, choice, now)
        before = operation
        try:
            transition = step(operation, event, now, max_failures=max_failures)
        except InvalidTransition:
            assert isinstance(event, Assigned)
            assert not before.status.terminal
            continue
        operation = transition.operation
        check_step(before, event, operation, max_failures)
        live_cancel = isinstance(event, CancelRequested) and not before.status.terminal
        cancel_acknowledged = cancel_acknowledged or live_cancel
        if cancel_acknowledged:
            assert operation.status in (OperationStatus.CANCELLING, OperationStatus.CANCELLED)
    if operation.status is OperationStatus.CANCELLING:  # and it really ends
        assert operation.lease_expires_at is not None
        late = max(now, operation.lease_expires_at)
        silent = an_event(WorkerLost, operation.assignment, late)
        assert step(operation, silent, late).operation.status is OperationStatus.CANCELLED


def check_step(before: Operation, event: Event, after: Operation, max_failures: int) -> None:
    if before.status.terminal:
        assert after.status is before.status
        assert (after.summary, after.artifacts, after.error) == (
            before.summary,
            before.artifacts,
            before.error,
        )
        assert (after.completed_at, after.progress) == (before.completed_at, before.progress)
    assigned = isinstance(event, Assigned) and before.status is OperationStatus.PENDING
    assert after.attempt == before.attempt + assigned
    assert before.failures <= after.failures <= max_failures
    assert after.failures - before.failures in (0, 1)
    assert len(after.story) <= STORY_LINES
    assert after.story[0].endswith("submitted")
    if after.attempt == before.attempt and before.progress is not None:
        assert after.progress is not None
        assert after.progress.percentage >= before.progress.percentage
    if after.status is OperationStatus.COMPLETED:
        assert after.progress is not None
        assert after.progress.percentage == 100
    assert (after.completed_at is not None) == after.status.terminal
    held = after.status in (OperationStatus.ASSIGNED, OperationStatus.RUNNING, OperationStatus.CANCELLING)
    assert (after.lease_expires_at is not None) == held
    if after.status is OperationStatus.FAILED:
        assert after.error


@settings(max_examples=50, deadline=None)
@given(st.lists(happening, max_size=30))
def test_the_machine_is_a_pure_function(choices: list[tuple]) -> None:
    """The same events at the same times give the same operation, and the input is not touched."""

    def life() -> list[Operation]:
        lived = [an_operation()]
        now = T0
        for choice in choices:
            now += timedelta(seconds=choice[-1])
            try:
                lived.append(step(lived[-1], event_of(lived[-1], choice, now), now).operation)
            except InvalidTransition:
                continue
        return lived

    first = life()
    copies = list(first)
    assert first == life()
    assert first == copies
