"""What the machine keeps of checkpoints: the two newest, until the operation is completed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ktrdr.operations.events import (
    CancelRequested,
    Checkpointed,
    ChildDied,
    DropCheckpoints,
    Event,
    Finished,
    LeaseExpired,
    Released,
)
from ktrdr.operations.machine import Transition, new_operation, step
from ktrdr.operations.model import Assignment, NewOperation, Operation, OperationStatus, OperationType
from ktrdr.testing.operations import T0, an_event, an_outcome, operation_in

A, B, C = "a" * 64, "b" * 64, "c" * 64
LATER = T0 + timedelta(seconds=1)
HERE = Assignment("worker-1", "instance-1", 1)


def after(operation: Operation, *events: Event) -> Transition:
    for event in events:
        transition = step(operation, event, LATER)
        operation = transition.operation
    return transition


def running(*digests: str) -> Operation:
    return after(
        operation_in(OperationStatus.RUNNING),
        Checkpointed(HERE, notes=("begun",)),
        *(Checkpointed(HERE, d) for d in digests),
    ).operation


def dropped(transition: Transition) -> list[tuple[str, ...]]:
    return [command.digests for command in transition.commands if isinstance(command, DropCheckpoints)]


def test_the_two_newest_are_kept_and_the_third_is_dropped() -> None:
    assert running(A).checkpoints == (A,)
    assert running(A, B).checkpoints == (B, A)
    third = after(running(A, B), Checkpointed(HERE, C))
    assert third.operation.checkpoints == (C, B)
    assert dropped(third) == [(A,)]


@pytest.mark.parametrize("digest", [A, B])
def test_news_that_come_again_change_nothing(digest: str) -> None:
    before = running(A, B)
    again = after(before, Checkpointed(HERE, digest))
    assert again.operation == before
    assert not again.commands


def test_one_that_proved_unusable_is_struck_out_and_its_reason_told() -> None:
    struck = after(running(A, B), Checkpointed(HERE, None, (B,), ("checkpoint bbbb skipped: damaged",)))
    assert struck.operation.checkpoints == (A,)
    assert struck.operation.status == "running"
    assert dropped(struck) == [(B,)]
    assert struck.operation.story[-1].endswith("attempt 1: checkpoint bbbb skipped: damaged")
    both = after(struck.operation, Checkpointed(HERE, C, (A,)))
    assert both.operation.checkpoints == (C,)


def test_stored_checkpoints_are_one_line_of_the_story() -> None:
    story = running(A, B, C).story
    assert [line.partition(" ")[2] for line in story[-1:]] == ["attempt 1: checkpoint stored (x3)"]


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([Released(HERE, C)], "pending"),
        ([ChildDied(HERE, "signal 9", checkpoint_digest=C)], "pending"),
        ([ChildDied(HERE, "memory", out_of_memory=True, checkpoint_digest=C)], "failed"),
        ([Finished(HERE, an_outcome(OperationStatus.FAILED, error="e"), checkpoint_digest=C)], "failed"),
        ([Finished(HERE, an_outcome(OperationStatus.CANCELLED), checkpoint_digest=C)], "cancelled"),
        (
            [CancelRequested(), Finished(HERE, an_outcome(OperationStatus.CANCELLED), checkpoint_digest=C)],
            "cancelled",
        ),
        ([CancelRequested(), Checkpointed(HERE, C), an_event(Finished, HERE)], "cancelled"),
        ([CancelRequested(), Released(HERE, C)], "cancelled"),
    ],
)
def test_whatever_ends_an_attempt_may_bring_its_last_one(events: list[Event], status: str) -> None:
    transitions, operation = [], running(A, B)
    for event in events:
        transitions.append(step(operation, event, LATER))
        operation = transitions[-1].operation
    assert operation.status == status
    assert operation.checkpoints == (C, B)
    assert [gone for transition in transitions for gone in dropped(transition)] == [(A,)]


def test_an_attempt_that_is_lost_leaves_them_for_the_next() -> None:
    operation = running(A, B)
    lost = step(operation, LeaseExpired(HERE, operation.lease_expires_at), LATER).operation
    assert (lost.status, lost.checkpoints) == ("pending", (B, A))
    late = after(lost, Checkpointed(HERE, C))
    assert (late.operation.status, late.operation.checkpoints) == ("pending", (C, B))


def test_a_completed_operation_needs_none() -> None:
    done = after(running(A, B), an_event(Finished, HERE))
    assert done.operation.status == "completed"
    assert done.operation.checkpoints == ()
    assert dropped(done) == [(B, A)]


def test_an_ended_operation_takes_no_more() -> None:
    cancelled = after(operation_in(OperationStatus.CANCELLED), Checkpointed(HERE, A))
    assert cancelled.outcome == "ignored"
    assert cancelled.operation.checkpoints == ()


@pytest.mark.parametrize("given", [(), (A,), (A, B)])
def test_a_resumed_operation_begins_with_its_parents(given: tuple[str, ...]) -> None:
    new = NewOperation(
        operation_id="op_2", operation_type=OperationType.TRAINING, spec=b"{}", checkpoints=given
    )
    assert new_operation(new, T0).checkpoints == given
