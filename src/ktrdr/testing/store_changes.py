"""Laws of an OperationStore: submissions, claims and events."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from ktrdr.errors import Conflict, InvalidInput, InvalidTransition, NotFound
from ktrdr.operations.events import Accepted, Assigned, CancelRequested, Finished, Progressed
from ktrdr.operations.model import (
    Assignment,
    NewOperation,
    OperationType,
)
from ktrdr.operations.progress import Progress
from ktrdr.operations.store import Claim, OperationQuery, OperationStore
from ktrdr.testing.operations import (
    LEASE,
    T0,
    a_submission,
    an_event,
    an_outcome,
    assigned_to,
)
from ktrdr.testing.store_lives import ASSIGNED, COMPLETED, PENDING, SECOND, StoreLaws

__all__ = ["ChangeLaws"]


class ChangeLaws(StoreLaws):
    """What a submission, a claim or an event changes, and what it must not."""

    async def test_a_submission_comes_back_as_it_was_recorded(self, store: OperationStore) -> None:
        new = a_submission(
            "op_a",
            priority=3,
            parent_operation_id="op_0",
            requirements={"require_gpu": True, "text": "grün"},
            idempotency_key="k",
        )
        moment = T0 + timedelta(microseconds=1)
        operation = await store.submit(new, moment)
        assert operation == await store.get("op_a")
        assert (operation.status, operation.created_at, operation.priority) == (PENDING, moment, 3)
        assert operation.requirements == {"require_gpu": True, "text": "grün"}
        assert operation.parent_operation_id == "op_0"
        assert await store.spec(operation.spec_digest) == new.spec

    async def test_an_id_is_used_once(self, store: OperationStore) -> None:
        first = await store.submit(a_submission("op_a"), T0)
        with pytest.raises(Conflict, match="op_a exists already"):
            await store.submit(a_submission("op_a", spec=b'{"other":1}'), T0 + SECOND)
        assert await store.get("op_a") == first
        with pytest.raises(NotFound):
            await store.spec("0" * 64)

    async def test_an_impossible_id_is_refused(self, store: OperationStore) -> None:
        with pytest.raises(InvalidInput, match="cannot be an operation's id"):
            await store.submit(a_submission("../etc"), T0)

    async def test_the_same_key_gives_the_earlier_operation(self, store: OperationStore) -> None:
        first = await store.submit(a_submission("op_a", idempotency_key="k"), T0)
        again = await store.submit(a_submission("op_b", idempotency_key="k"), T0 + SECOND)
        assert again == first
        assert (await store.page(OperationQuery())).total == 1
        assert (await store.by_key("k"), await store.by_key("op_a")) == (first, None)

    async def test_the_same_key_with_another_spec_is_a_conflict(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_a", idempotency_key="k"), T0)
        with pytest.raises(Conflict, match="'k' already belongs to operation op_a"):
            await store.submit(a_submission("op_b", idempotency_key="k", spec=b"{}"), T0)
        with pytest.raises(NotFound):
            await store.get("op_b")

    async def test_with_a_key_the_same_request_is_what_counts(self, store: OperationStore) -> None:
        """It may mean something else by now; and two requests may come to mean the same."""
        one, other = "1" * 64, "2" * 64
        first = await store.submit(a_submission("op_a", idempotency_key="k", request_digest=one), T0)
        again = a_submission("op_b", idempotency_key="k", request_digest=one, spec=b'{"newer":1}')
        assert await store.submit(again, T0 + SECOND) == first == await store.get("op_a")
        assert first.request_digest == one
        with pytest.raises(Conflict, match="'k' already belongs to operation op_a, which came with another"):
            await store.submit(a_submission("op_b", idempotency_key="k", request_digest=other), T0)
        with pytest.raises(NotFound):
            await store.get("op_b")

    async def test_concurrent_submissions_with_one_key_make_one_operation(
        self, store: OperationStore
    ) -> None:
        news = [a_submission(f"op_{i}", idempotency_key="k") for i in range(8)]
        made = await asyncio.gather(*(store.submit(new, T0) for new in news))
        assert len({operation.operation_id for operation in made}) == 1

    async def test_a_bad_submission_harms_no_other_of_its_batch(self, store: OperationStore) -> None:
        news: list[NewOperation] = [a_submission("op_a" if i % 2 else f"op_{i}") for i in range(10)]
        made = await asyncio.gather(*(store.submit(new, T0) for new in news), return_exceptions=True)
        refused = [outcome for outcome in made if isinstance(outcome, BaseException)]
        assert len(refused) == 4
        assert all(isinstance(error, Conflict) for error in refused)
        assert (await store.page(OperationQuery())).total == 6

    async def test_a_whole_life_is_kept(self, store: OperationStore) -> None:
        operation = await self.running(store, "op_a")
        assert operation.assignment is not None
        progress = Progress(3, 10, "bar 3", {"current_bar": 3, "win_rate": 0.5, "current_date": None})
        event = Progressed(operation.assignment, T0 + 2 * LEASE, progress)
        transition = await store.apply("op_a", event, T0 + SECOND)
        assert transition.operation == await store.get("op_a")
        assert transition.operation.progress == progress
        done = an_outcome(summary={"total_return": -0.1, "trades": 12, "none": None})
        ended = (await store.apply("op_a", Finished(operation.assignment, done), T0 + 2 * SECOND)).operation
        assert ended == await store.get("op_a")
        assert (ended.status, ended.completed_at) == (COMPLETED, T0 + 2 * SECOND)
        assert ended.summary == done.summary
        assert ended.artifacts == done.artifacts

    async def test_numbers_that_are_not_finite_do_no_harm(self, store: OperationStore) -> None:
        operation = await self.running(store, "op_a")
        assert operation.assignment is not None
        progress = Progress(1, 2, context={"val_loss": float("nan")})
        await store.apply("op_a", Progressed(operation.assignment, T0 + LEASE, progress), T0)
        assert (await store.get("op_a")).progress is not None

    async def test_an_impossible_event_changes_nothing(self, store: OperationStore) -> None:
        before = await self.running(store, "op_a")
        with pytest.raises(InvalidTransition, match="op_a is running; 'Assigned' is not possible"):
            await store.apply("op_a", assigned_to("worker-2"), T0 + SECOND)
        assert await store.get("op_a") == before

    async def test_applying_to_an_unknown_operation_is_not_found(self, store: OperationStore) -> None:
        with pytest.raises(NotFound, match="op_none"):
            await store.apply("op_none", CancelRequested(), T0)

    async def test_concurrent_assignments_give_one_owner(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_a"), T0)
        tries = [store.apply("op_a", assigned_to(f"worker-{i}"), T0) for i in range(8)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(won) == 1
        assert (await store.get("op_a")).attempt == 1
        assert (await store.get("op_a")).worker_id == won[0].operation.worker_id

    async def test_terminal_is_final(self, store: OperationStore) -> None:
        before = await self.completed(store, "op_a")
        assert before.assignment is not None
        for kind in (Assigned, Finished, CancelRequested, Progressed):
            transition = await store.apply("op_a", an_event(kind, before.assignment), T0 + LEASE)
            assert transition.outcome == "ignored"
        after = await store.get("op_a")
        assert (after.status, after.summary, after.completed_at) == (
            before.status,
            before.summary,
            before.completed_at,
        )
        assert after.attempt == before.attempt
        assert len(after.story) > len(before.story)

    async def test_changes_that_come_together_happen_one_after_the_other(self, store: OperationStore) -> None:
        """Ten operations' whole lives at once, each event right behind the one it follows."""
        calls: list[Coroutine[Any, Any, object]] = []
        for number in range(10):
            name, assignment = f"op_{number}", Assignment("worker-1", "instance-1", 1)
            calls += [
                store.submit(a_submission(name), T0),
                store.apply(name, assigned_to(), T0),
                store.apply(name, assigned_to("worker-2"), T0),
                store.apply(name, Accepted(assignment, T0 + LEASE), T0),
                store.apply(name, Finished(assignment, an_outcome()), T0 + SECOND),
            ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for number in range(10):
            ended = await store.get(f"op_{number}")
            assert (ended.status, ended.attempt, ended.worker_id) == (COMPLETED, 1, "worker-1")
            assert isinstance(outcomes[5 * number + 2], InvalidTransition)
        assert await store.counts() == {(OperationType.BACKTESTING, COMPLETED): 10}

    async def test_a_submission_may_come_with_its_assignment(self, store: OperationStore) -> None:
        operation = await store.submit(a_submission("op_a"), T0, assign=assigned_to("worker-7"))
        assert operation == await store.get("op_a")
        assert (operation.status, operation.worker_id, operation.attempt) == (ASSIGNED, "worker-7", 1)
        told = [line.partition(" ")[2] for line in operation.story]
        assert told == ["submitted", "attempt 1: assigned to worker-7"]
        assert await store.counts() == {(OperationType.BACKTESTING, ASSIGNED): 1}
        with pytest.raises(Conflict, match="op_a exists already"):
            await store.submit(a_submission("op_a"), T0, assign=assigned_to("worker-8"))
        assert await store.get("op_a") == operation

    async def test_a_repeated_submission_assigns_nothing(self, store: OperationStore) -> None:
        first = await store.submit(a_submission("op_a", idempotency_key="k"), T0)
        new = a_submission("op_b", idempotency_key="k")
        assert await store.submit(new, T0, assign=assigned_to()) == first
        assert await store.get("op_a") == first

    async def test_claims_assign_what_is_pending_and_leave_the_rest(self, store: OperationStore) -> None:
        for name in ("op_a", "op_b", "op_c"):
            await store.submit(a_submission(name), T0)
        running = await self.running(store, "op_running")
        names = ("op_b", "op_running", "op_none", "op_a", "op_b")
        claims = [Claim(name, assigned_to(f"worker-{n}")) for n, name in enumerate(names)]
        made = await store.claim(claims, T0 + SECOND)
        owners = [None if t is None else (t.operation.operation_id, t.operation.worker_id) for t in made]
        assert owners == [("op_b", "worker-0"), None, None, ("op_a", "worker-3"), None]
        for transition in made:
            if transition is not None:
                assert transition.operation == await store.get(transition.operation.operation_id)
                assert (transition.operation.status, transition.outcome) == (ASSIGNED, "changed")
        assert await store.get("op_running") == running
        assert [o.operation_id for o in await store.pending(T0 + SECOND, 9)] == ["op_c"]
        assert await store.claim([], T0) in ([], ())

    async def test_concurrent_claims_give_one_owner(self, store: OperationStore) -> None:
        names = [f"op_{n}" for n in range(4)]
        for name in names:
            await store.submit(a_submission(name), T0)
        tries = [
            store.claim([Claim(name, assigned_to(f"worker-{turn}")) for name in names], T0)
            for turn in range(6)
        ]
        made = [t for each in await asyncio.gather(*tries) for t in each if t is not None]
        assert sorted(t.operation.operation_id for t in made) == names
        assert [(await store.get(name)).attempt for name in names] == [1] * 4
