"""The transition table, cell by cell, and what each transition writes down."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ktrdr.errors import InvalidInput, InvalidTransition
from ktrdr.operations.events import (
    Accepted,
    Assigned,
    CancelRequested,
    CancelWorker,
    Checkpointed,
    ChildDied,
    Finished,
    LeaseExpired,
    NotMine,
    Progressed,
    Refused,
    Released,
    Reported,
    StopStray,
    Unreachable,
    Wake,
    WorkerLost,
)
from ktrdr.operations.machine import EVENTS, TABLE, step
from ktrdr.operations.model import Assignment, Operation, OperationStatus
from ktrdr.operations.progress import Progress
from ktrdr.testing.operations import (
    LEASE,
    T0,
    an_event,
    an_operation,
    an_outcome,
    assigned_to,
    operation_in,
)

PENDING, ASSIGNED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED = OperationStatus
LATER = T0 + 2 * LEASE
FIRST = Assignment("worker-1", "instance-1", 1)


def pending_again() -> Operation:
    """Pending after attempt 1 was lost: the newest assignment is still on record."""
    return step(operation_in(RUNNING), LeaseExpired(FIRST, T0 + LEASE), LATER).operation


def in_status(status: OperationStatus) -> Operation:
    return pending_again() if status is PENDING else operation_in(status)


# What contracts say, written down a second time: "-" is an explicit ignore, "!" InvalidTransition.
COLUMNS = (PENDING, ASSIGNED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED)
EXPECTED = {
    Assigned: ("assigned", "!", "!", "!", "-", "-", "-"),
    Accepted: ("running", "running", "running", "cancelling", "-", "-", "-"),
    Progressed: ("running", "running", "running", "cancelling", "-", "-", "-"),
    Reported: ("-", "-", "running", "-", "-", "-", "-"),
    Refused: ("-", "pending", "-", "cancelled", "-", "-", "-"),
    Unreachable: ("-", "assigned", "-", "-", "-", "-", "-"),
    Finished: ("completed", "completed", "completed", "cancelled", "-", "-", "-"),
    Released: ("pending", "pending", "pending", "cancelled", "-", "-", "-"),
    LeaseExpired: ("-", "pending", "pending", "cancelled", "-", "-", "-"),
    WorkerLost: ("-", "pending", "pending", "cancelled", "-", "-", "-"),
    NotMine: ("-", "pending", "pending", "cancelled", "-", "-", "-"),
    ChildDied: ("pending", "pending", "pending", "cancelled", "-", "-", "-"),
    Checkpointed: ("pending", "assigned", "running", "cancelling", "-", "-", "-"),
    CancelRequested: ("cancelled", "cancelling", "cancelling", "-", "-", "-", "-"),
}
PAIRS = [(status, kind) for kind in EVENTS for status in COLUMNS]


def test_the_table_has_every_pair_and_no_other() -> None:
    assert set(TABLE) == set(PAIRS)
    assert set(EXPECTED) == set(EVENTS)


@pytest.mark.parametrize(("status", "kind"), PAIRS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_pair_does_what_the_contract_says(status: OperationStatus, kind: type) -> None:
    operation = in_status(status)
    expected = EXPECTED[kind][COLUMNS.index(status)]
    event = an_event(kind, FIRST, LATER)
    if expected == "!":
        with pytest.raises(InvalidTransition):
            step(operation, event, LATER)
        return
    transition = step(operation, event, LATER)
    if expected == "-":
        assert transition.outcome == "ignored"
        assert replace(transition.operation, story=operation.story) == operation
        assert transition.operation.story != operation.story
    else:
        assert transition.outcome == "changed"
        assert transition.operation.status == expected
        assert transition.operation.status in TABLE[status, kind].to
        assert transition.operation != operation


@pytest.mark.parametrize("status", [PENDING, ASSIGNED, RUNNING, CANCELLING])
@pytest.mark.parametrize("kind", [kind for kind in EVENTS if kind not in (Assigned, CancelRequested)])
@pytest.mark.parametrize(
    "stranger",
    [
        Assignment("worker-1", "instance-1", 0),
        Assignment("worker-1", "instance-1", 2),
        Assignment("worker-2", "instance-1", 1),
        Assignment("worker-1", "instance-2", 1),
    ],
    ids=["older attempt", "future attempt", "other worker", "other instance"],
)
def test_the_fence_lets_only_the_newest_assignment_count(
    status: OperationStatus, kind: type, stranger: Assignment
) -> None:
    operation = in_status(status)
    transition = step(operation, an_event(kind, stranger, LATER), LATER)
    assert transition.outcome == "ignored"
    assert replace(transition.operation, story=operation.story) == operation
    may_run = kind in (Accepted, Progressed, Unreachable, Checkpointed)
    assert transition.commands == ((StopStray("op_1", stranger),) if may_run else ())


def test_an_operation_never_assigned_ignores_who_claims_it() -> None:
    transition = step(an_operation(), an_event(Accepted, FIRST), T0)
    assert (transition.outcome, transition.operation.status) == ("ignored", PENDING)
    assert transition.commands == (StopStray("op_1", FIRST),)


@pytest.mark.parametrize("status", [COMPLETED, FAILED, CANCELLED])
def test_whoever_still_runs_an_ended_operation_is_told_to_stop(status: OperationStatus) -> None:
    transition = step(operation_in(status), an_event(Progressed, FIRST), LATER)
    assert transition.commands == (StopStray("op_1", FIRST),)


def test_invalid_transition_tells_the_story() -> None:
    with pytest.raises(InvalidTransition) as caught:
        step(operation_in(RUNNING), assigned_to("worker-2"), LATER)
    error = caught.value
    assert (error.operation_id, error.status, error.event) == ("op_1", "running", "Assigned")
    assert "attempt 1: assigned to worker-1" in str(error)


# --- attempts and refusals ----------------------------------------------------------------------------------------


def test_assigning_increments_the_attempt_and_takes_the_lease() -> None:
    operation = step(an_operation(), assigned_to(), T0).operation
    assert operation.assignment == FIRST
    assert operation.lease_expires_at == T0 + LEASE


def test_a_refusal_counts_no_failure_but_the_next_attempt_has_a_new_number() -> None:
    refused = step(operation_in(ASSIGNED), Refused(FIRST, "busy", not_before=LATER), T0)
    assert (refused.operation.failures, refused.operation.not_before) == (0, LATER)
    assert refused.commands == (Wake("op_1"),)
    again = step(refused.operation, assigned_to("worker-2"), LATER).operation
    assert (again.attempt, again.worker_id, again.not_before) == (2, "worker-2", None)


def test_refusals_have_no_limit() -> None:
    operation = an_operation()
    for attempt in range(1, 20):
        operation = step(operation, assigned_to(), T0).operation
        operation = step(
            operation, Refused(Assignment("worker-1", "instance-1", attempt), "busy"), T0
        ).operation
    assert (operation.status, operation.attempt, operation.failures) == (PENDING, 19, 0)


def test_no_answer_keeps_the_assignment_and_its_lease() -> None:
    transition = step(operation_in(ASSIGNED), Unreachable(FIRST, "timed out"), T0)
    assert transition.operation.assignment == FIRST
    assert transition.operation.lease_expires_at == T0 + LEASE
    assert transition.commands == ()
    assert "outcome unknown" in transition.operation.story[-1]


def test_a_release_counts_no_failure_and_keeps_the_checkpoint() -> None:
    released = step(operation_in(RUNNING), Released(FIRST, "c" * 64), LATER)
    assert (released.operation.status, released.operation.failures) == (PENDING, 0)
    assert released.operation.checkpoint_digest == "c" * 64
    assert released.commands == (Wake("op_1"),)
    second = step(released.operation, assigned_to("worker-2"), LATER).operation
    empty = step(second, Released(Assignment("worker-2", "instance-1", 2)), LATER).operation
    assert empty.checkpoint_digest == "c" * 64, "an attempt without a checkpoint does not lose the older one"


def test_a_checkpoint_that_comes_late_is_still_taken() -> None:
    late = step(pending_again(), Released(FIRST, "e" * 64), LATER)
    assert (late.outcome, late.operation.checkpoint_digest) == ("changed", "e" * 64)
    assert late.operation.assignment is None, "its worker said that it has ended"


# --- running ------------------------------------------------------------------------------------------------------


def test_the_first_sign_of_life_starts_it() -> None:
    operation = step(operation_in(ASSIGNED), Accepted(FIRST, LATER), T0 + LEASE / 2).operation
    assert (operation.started_at, operation.lease_expires_at) == (T0 + LEASE / 2, LATER)


@pytest.mark.parametrize("status", [ASSIGNED, RUNNING, CANCELLING])
def test_the_last_renewal_counts_although_the_clock_was_set_back(status: OperationStatus) -> None:
    before = T0 - timedelta(hours=1)
    operation = step(operation_in(status), Progressed(FIRST, before), before).operation
    assert operation.lease_expires_at == before


def test_progress_moves_forward_only() -> None:
    operation = operation_in(RUNNING)
    seen = []
    for done, total in [(1, 10), (5, 10), (3, 10), (5, 10), (6, 1000), (7, 10), (0, 0)]:
        operation = step(operation, Progressed(FIRST, LATER, Progress(done, total)), T0).operation
        assert operation.progress is not None
        seen.append(operation.progress.percentage)
    assert seen == [10, 50, 50, 50, 50, 70, 70]


def test_progress_of_an_unknown_total_moves_by_its_count() -> None:
    operation = step(operation_in(RUNNING), Progressed(FIRST, LATER, Progress(7, 0)), T0).operation
    operation = step(operation, Progressed(FIRST, LATER, Progress(5, 0)), T0).operation
    assert operation.progress == Progress(7, 0)


def test_a_renewal_without_progress_keeps_it_and_tells_nothing() -> None:
    before = step(operation_in(RUNNING), Progressed(FIRST, LATER, Progress(7, 10, "bar 7")), T0).operation
    after = step(before, Progressed(FIRST, LATER + LEASE), LATER).operation
    assert after.progress == before.progress
    assert after.story == before.story


def test_a_new_attempt_starts_its_own_progress() -> None:
    ran = step(operation_in(RUNNING), Progressed(FIRST, LATER, Progress(7, 10)), T0).operation
    lost = step(ran, NotMine(FIRST), LATER).operation
    assert lost.progress == Progress(7, 10), "people see how far it came while it waits"
    assert step(lost, assigned_to("worker-2"), LATER).operation.progress is None


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (None, Progress(1, 1, "completed")),
        (Progress(3, 10, "bar 3", {"a": 1}), Progress(10, 10, "bar 3", {"a": 1})),
        (Progress(12, 10), Progress(12, 12)),
        (Progress(5, 0), Progress(5, 5)),
        (Progress(0, 0), Progress(1, 1)),
    ],
)
def test_completion_is_one_hundred_per_cent(progress: Progress | None, expected: Progress) -> None:
    operation = replace(operation_in(RUNNING), progress=progress)
    done = step(operation, Finished(FIRST, an_outcome()), LATER).operation
    assert done.progress == expected
    assert done.progress.percentage == 100


def test_the_end_brings_the_last_progress_with_its_true_count() -> None:
    seen_by_a_probe = step(operation_in(RUNNING), Progressed(FIRST, LATER, Progress(3, 100)), T0).operation
    last = Progress(20, 100, "epoch 20", {"epoch": 20, "val_loss": 0.5})
    done = step(seen_by_a_probe, Finished(FIRST, an_outcome(), last), LATER).operation
    assert done.progress == Progress(20, 20, "epoch 20", {"epoch": 20, "val_loss": 0.5}), "stopped early"
    never_seen = step(operation_in(ASSIGNED), Finished(FIRST, an_outcome(), Progress(7, 7, "x")), LATER)
    assert never_seen.operation.progress == Progress(7, 7, "x")
    silent = step(operation_in(RUNNING), Finished(FIRST, an_outcome(), Progress(0, 10, "x")), LATER)
    assert silent.operation.progress == Progress(10, 10, "x")


@pytest.mark.parametrize("status", [PENDING, ASSIGNED, RUNNING, CANCELLING])
def test_every_end_keeps_how_far_it_came(status: OperationStatus) -> None:
    last = Progress(4, 10, "bar 4", {"current_bar": 4})
    failed = Finished(FIRST, an_outcome(FAILED, error="x"), last)
    for event in (failed, Released(FIRST, "c" * 64, last), ChildDied(FIRST, "signal 9", progress=last)):
        before = in_status(status)
        transition = step(before, event, LATER)
        expected = last if transition.outcome == "changed" else before.progress
        assert transition.operation.progress == expected, event


def test_a_late_end_does_not_move_progress_back() -> None:
    ran = step(operation_in(RUNNING), Progressed(FIRST, LATER, Progress(7, 10)), T0).operation
    failed = Finished(FIRST, an_outcome(FAILED, error="x"), Progress(4, 10))
    assert step(ran, failed, LATER).operation.progress == Progress(7, 10)


# --- ends ---------------------------------------------------------------------------------------------------------


def test_a_result_is_kept_and_the_slot_is_free() -> None:
    transition = step(operation_in(RUNNING), Finished(FIRST, an_outcome()), LATER)
    done = transition.operation
    assert (done.status, done.completed_at, done.lease_expires_at) == (COMPLETED, LATER, None)
    assert (done.summary, done.artifacts["result"]) == ({"total_return": 0.25}, "a" * 64)
    assert (done.error, transition.commands) == (None, (Wake("op_1"),))


def test_a_short_job_may_finish_before_it_was_accepted() -> None:
    done = step(operation_in(ASSIGNED), Finished(FIRST, an_outcome()), LATER).operation
    assert (done.status, done.started_at) == (COMPLETED, LATER)


def test_a_job_that_fails_is_not_tried_again() -> None:
    outcome = an_outcome(FAILED, error="ZeroDivisionError: division by zero")
    failed = step(operation_in(RUNNING), Finished(FIRST, outcome), LATER).operation
    assert (failed.status, failed.error, failed.failures) == (FAILED, outcome.error, 0)
    assert failed.artifacts["log"] == "b" * 64
    assert failed.summary is None


def test_a_failure_without_words_gets_some() -> None:
    failed = step(operation_in(RUNNING), Finished(FIRST, an_outcome(FAILED)), LATER).operation
    assert failed.error == "The job failed and its worker gave no reason."


def test_an_error_is_capped() -> None:
    outcome = an_outcome(FAILED, error="x" * 1_000_000)
    failed = step(operation_in(RUNNING), Finished(FIRST, outcome), LATER).operation
    assert failed.error is not None
    assert len(failed.error) == 8_000


def test_a_job_cancelled_at_its_worker_is_cancelled() -> None:
    ended = step(operation_in(RUNNING), Finished(FIRST, an_outcome(CANCELLED)), LATER).operation
    assert (ended.status, ended.error) == (CANCELLED, None)


def test_an_attempt_that_was_given_up_and_told_to_stop_cancels_nothing() -> None:
    stopped = step(pending_again(), Finished(FIRST, an_outcome(CANCELLED), Progress(4, 10)), LATER).operation
    assert (stopped.status, stopped.attempt, stopped.failures) == (PENDING, 1, 1)
    assert stopped.progress == Progress(4, 10)
    assert step(stopped, Progressed(FIRST, LATER), LATER).outcome == "ignored", "it can be adopted no more"


def test_a_result_that_was_given_up_is_adopted() -> None:
    lost = pending_again()
    assert step(lost, Finished(FIRST, an_outcome()), LATER).operation.status is COMPLETED
    back = step(lost, Progressed(FIRST, LATER + LEASE, Progress(8, 10)), LATER).operation
    assert (back.status, back.attempt, back.failures) == (RUNNING, 1, 1)
    assert "adopted" in back.story[-1]
    again = step(back, WorkerLost(FIRST, "restarted"), LATER).operation
    assert (again.status, again.attempt, again.failures) == (PENDING, 1, 2)  # coming and going is bounded too


@pytest.mark.parametrize("status", [PENDING, RUNNING], ids=["given up before", "running"])
@pytest.mark.parametrize("ended", [Released(FIRST), ChildDied(FIRST, "signal 9")])
@pytest.mark.parametrize("kind", [Accepted, Progressed])
def test_what_its_own_worker_ended_is_not_adopted(
    kind: type[Accepted | Progressed], ended: Released | ChildDied, status: OperationStatus
) -> None:
    """A probe that was answered before the end and comes after it must not revive an attempt that nobody runs."""
    over = step(operation_in(RUNNING) if status is RUNNING else pending_again(), ended, LATER).operation
    late = step(over, an_event(kind, FIRST, LATER), LATER)
    assert (late.outcome, late.operation.status) == ("ignored", PENDING)
    assert late.commands == (StopStray("op_1", FIRST),)
    again = step(late.operation, assigned_to("worker-1"), LATER).operation
    assert (again.status, again.attempt) == (ASSIGNED, 2)


def test_a_result_of_an_older_attempt_is_discarded() -> None:
    second = step(pending_again(), assigned_to("worker-2"), LATER).operation
    late = step(second, Finished(FIRST, an_outcome()), LATER)
    assert (late.outcome, late.operation.status, late.operation.summary) == ("ignored", ASSIGNED, None)


# --- losses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LeaseExpired, WorkerLost, NotMine])
def test_lost_attempts_are_repeated_until_the_maximum(kind: type) -> None:
    operation = an_operation()
    for attempt in (1, 2, 3):
        operation = step(operation, assigned_to(), T0).operation
        newest = Assignment("worker-1", "instance-1", attempt)
        transition = step(operation, an_event(kind, newest, LATER), LATER, max_failures=3)
        operation = transition.operation
        assert operation.failures == attempt
        assert operation.status is (FAILED if attempt == 3 else PENDING)
    assert operation.error is not None
    assert operation.error.startswith("Given up after 3 losses")
    expected = (Wake("op_1"),) if kind is NotMine else (StopStray("op_1", newest), Wake("op_1"))
    assert transition.commands == expected


def test_a_single_failure_can_be_the_maximum() -> None:
    assert step(operation_in(RUNNING), NotMine(FIRST), LATER, max_failures=1).operation.status is FAILED


@pytest.mark.parametrize("status", [ASSIGNED, RUNNING, CANCELLING])
def test_an_expiry_that_was_overtaken_by_a_renewal_is_ignored(status: OperationStatus) -> None:
    looked_at = operation_in(status)
    renewed = step(looked_at, Progressed(FIRST, LATER), LATER).operation
    for now in (T0 - LEASE, T0, LATER + LEASE):  # what the clock says makes no difference
        expiry = LeaseExpired(FIRST, looked_at.lease_expires_at)
        assert step(renewed, expiry, now).outcome == "ignored"
        assert step(looked_at, expiry, now).outcome == "changed"


def test_out_of_memory_fails_at_once() -> None:
    event = ChildDied(FIRST, "peak 7.9 GB of 8 GB", out_of_memory=True)
    failed = step(operation_in(RUNNING), event, LATER).operation
    assert failed.status is FAILED
    assert failed.error == "The job's process ran out of memory: peak 7.9 GB of 8 GB"


def test_another_death_gets_one_retry_whatever_was_lost_before() -> None:
    lost = pending_again()
    second = step(lost, assigned_to("worker-2"), LATER).operation
    died = step(
        second, ChildDied(Assignment("worker-2", "instance-1", 2), "signal 11"), LATER, max_failures=9
    )
    assert (died.operation.status, died.operation.child_deaths, died.operation.failures) == (PENDING, 1, 2)
    third = step(died.operation, assigned_to("worker-3"), LATER).operation
    event = ChildDied(Assignment("worker-3", "instance-1", 3), "signal 11")
    dead = step(third, event, LATER, max_failures=9).operation
    assert (dead.status, dead.child_deaths) == (FAILED, 2)
    assert dead.error == "The job's process died: signal 11"


# --- cancelling ---------------------------------------------------------------------------------------------------


def test_cancelling_a_waiting_operation_ends_it() -> None:
    transition = step(an_operation(), CancelRequested("changed my mind"), LATER)
    assert transition.operation.status is CANCELLED
    assert transition.operation.cancel_requested_at == LATER
    assert transition.commands == (Wake("op_1"),)
    assert "changed my mind" in transition.operation.story[-1]


def test_cancelling_a_lost_operation_stops_whoever_may_still_run_it() -> None:
    transition = step(pending_again(), CancelRequested(), LATER)
    assert transition.commands == (StopStray("op_1", FIRST), Wake("op_1"))


@pytest.mark.parametrize("status", [ASSIGNED, RUNNING])
def test_cancelling_tells_the_worker(status: OperationStatus) -> None:
    transition = step(operation_in(status), CancelRequested(), LATER)
    assert (transition.operation.status, transition.operation.cancel_requested_at) == (CANCELLING, LATER)
    assert transition.commands == (CancelWorker("op_1", FIRST),)


@pytest.mark.parametrize("kind", [Accepted, Progressed, CancelRequested])
def test_a_worker_that_did_not_hear_is_told_again(kind: type) -> None:
    transition = step(operation_in(CANCELLING), an_event(kind, FIRST, LATER), LATER)
    assert transition.operation.status is CANCELLING
    assert transition.commands == (CancelWorker("op_1", FIRST),)


@pytest.mark.parametrize("outcome", [COMPLETED, FAILED, CANCELLED])
def test_cancel_acknowledged_means_cancelled_whatever_is_delivered(outcome: OperationStatus) -> None:
    delivered = an_outcome(outcome, artifacts={"result": "a" * 64, "log": "b" * 64}, error="boom")
    ended = step(operation_in(CANCELLING), Finished(FIRST, delivered), LATER).operation
    assert (ended.status, ended.summary, ended.error) == (CANCELLED, None, None)
    assert ended.artifacts == {"log": "b" * 64}, "no result of a cancelled operation is published"


@pytest.mark.parametrize("kind", [LeaseExpired, WorkerLost])
def test_a_cancelled_worker_that_went_silent_is_stopped_when_it_returns(kind: type) -> None:
    transition = step(operation_in(CANCELLING), an_event(kind, FIRST, LATER), LATER)
    assert transition.operation.status is CANCELLED
    assert transition.commands == (StopStray("op_1", FIRST), Wake("op_1"))


# --- submission ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "..", "ä", "a\n", "x" * 129])
def test_an_impossible_id_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be an operation's id"):
        an_operation(name)


def test_a_new_operation_does_not_share_its_requirements() -> None:
    requirements = {"require_gpu": True}
    operation = an_operation(requirements=requirements)
    requirements["require_gpu"] = False
    assert operation.requirements == {"require_gpu": True}


def test_a_spec_is_known_by_its_sha256() -> None:
    assert an_operation().spec_digest == "dbf1004472610af57bb3817bc6c072b3638065133b6082084a21d2c65851cab0"
