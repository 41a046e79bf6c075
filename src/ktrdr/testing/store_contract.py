"""The laws of :class:`ktrdr.operations.store.OperationStore` as tests that every implementation inherits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from ktrdr.errors import Conflict, InvalidInput, InvalidTransition, NotFound
from ktrdr.operations.events import Accepted, Assigned, CancelRequested, Finished, Progressed, Refused
from ktrdr.operations.machine import EVENTS
from ktrdr.operations.model import (
    Assignment,
    JobOutcome,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
)
from ktrdr.operations.progress import Progress
from ktrdr.operations.store import LONGEST_WAIT, Claim, OperationQuery, OperationStore
from ktrdr.testing.operations import (
    LEASE,
    T0,
    a_model,
    a_submission,
    a_worker,
    an_event,
    an_outcome,
    assigned_to,
)

__all__ = ["OperationStoreContract"]

PENDING, ASSIGNED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED = OperationStatus
SECOND = timedelta(seconds=1)


class OperationStoreContract:
    """Inherit and provide the fixture ``store``: an async fixture that yields an empty store and closes it."""

    async def running(self, store: OperationStore, operation_id: str, **changes: Any) -> Operation:
        await store.submit(a_submission(operation_id, **changes), T0)
        operation = (await store.apply(operation_id, assigned_to(), T0)).operation
        assert operation.assignment is not None
        return (await store.apply(operation_id, Accepted(operation.assignment, T0 + LEASE), T0)).operation

    async def completed(self, store: OperationStore, operation_id: str, **changes: Any) -> Operation:
        operation = await self.running(store, operation_id, **changes)
        assert operation.assignment is not None
        return (
            await store.apply(operation_id, Finished(operation.assignment, an_outcome()), T0 + SECOND)
        ).operation

    # --- submit ---------------------------------------------------------------------------------------------------

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

    async def test_the_same_key_with_another_spec_is_a_conflict(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_a", idempotency_key="k"), T0)
        with pytest.raises(Conflict, match="'k' already belongs to operation op_a"):
            await store.submit(a_submission("op_b", idempotency_key="k", spec=b"{}"), T0)
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

    # --- apply ----------------------------------------------------------------------------------------------------

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

    # --- reading --------------------------------------------------------------------------------------------------

    async def test_pending_is_in_dispatch_order(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_late"), T0 + SECOND)
        await store.submit(a_submission("op_b"), T0)
        await store.submit(a_submission("op_a"), T0)
        await store.submit(a_submission("op_urgent", priority=5), T0 + 2 * SECOND)
        await self.running(store, "op_running")
        found = await store.pending(T0, 10)
        assert [o.operation_id for o in found] == ["op_urgent", "op_a", "op_b", "op_late"]
        assert [o.operation_id for o in await store.pending(T0, 2)] == ["op_urgent", "op_a"]
        assert [await store.queue_position(o.operation_id) for o in found] == [1, 2, 3, 4]

    async def test_the_queue_is_counted_per_type(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_a"), T0)
        await store.submit(a_submission("op_t", operation_type=OperationType.TRAINING), T0 + SECOND)
        await self.running(store, "op_running")
        assert await store.queue_position("op_t") == 1
        assert await store.queue_position("op_running") is None
        with pytest.raises(NotFound):
            await store.queue_position("op_none")

    async def test_pending_leaves_out_who_must_wait(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_a"), T0)
        assignment = (await store.apply("op_a", assigned_to(), T0)).operation.assignment
        assert assignment is not None
        until = T0 + LONGEST_WAIT
        await store.apply("op_a", Refused(assignment, "busy", not_before=until), T0)
        for waiting in (T0, until - timedelta(microseconds=1)):
            assert await store.pending(waiting, 10) == ()
        clock_set_back = T0 - timedelta(microseconds=1)
        for ready in (until, T0 + timedelta(days=1), clock_set_back, T0 - timedelta(days=1)):
            assert [o.operation_id for o in await store.pending(ready, 10)] == ["op_a"]

    async def test_live_is_whoever_a_worker_may_hold(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_pending"), T0)
        await store.submit(a_submission("op_assigned"), T0)
        await store.apply("op_assigned", assigned_to(), T0)
        await self.running(store, "op_running")
        await self.running(store, "op_cancelling")
        await store.apply("op_cancelling", CancelRequested(), T0)
        await self.completed(store, "op_completed")
        assert {o.operation_id for o in await store.live()} == {"op_assigned", "op_running", "op_cancelling"}

    async def test_pages_cover_everything_once_newest_first(self, store: OperationStore) -> None:
        for number in range(7):
            await store.submit(a_submission(f"op_{number}"), T0 + (number // 2) * SECOND)
        seen: list[str] = []
        cursor = None
        for _ in range(4):
            page = await store.page(OperationQuery(limit=2, cursor=cursor))
            assert page.total == 7
            seen += [o.operation_id for o in page.operations]
            cursor = page.next_cursor
        assert cursor is None
        assert seen == ["op_6", "op_5", "op_4", "op_3", "op_2", "op_1", "op_0"]

    async def test_a_page_does_not_slip_when_something_new_arrives(self, store: OperationStore) -> None:
        for number in range(4):
            await store.submit(a_submission(f"op_{number}"), T0 + number * SECOND)
        first = await store.page(OperationQuery(limit=2))
        await store.submit(a_submission("op_new"), T0 + LEASE)
        second = await store.page(OperationQuery(limit=2, cursor=first.next_cursor))
        assert [o.operation_id for o in second.operations] == ["op_1", "op_0"]

    async def test_pages_filter(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_a"), T0)
        await self.running(store, "op_b")
        await self.completed(store, "op_t", operation_type=OperationType.TRAINING)

        async def ids(query: OperationQuery) -> set[str]:
            page = await store.page(query)
            assert page.total == len(page.operations)
            return {o.operation_id for o in page.operations}

        assert await ids(OperationQuery(statuses=(PENDING,))) == {"op_a"}
        assert await ids(OperationQuery(statuses=(PENDING, COMPLETED))) == {"op_a", "op_t"}
        assert await ids(OperationQuery(operation_type=OperationType.TRAINING)) == {"op_t"}
        assert await ids(OperationQuery(worker_id="worker-1")) == {"op_b", "op_t"}
        assert await ids(OperationQuery(worker_id="worker-1", statuses=(RUNNING,))) == {"op_b"}
        assert await ids(OperationQuery(statuses=(FAILED,))) == set()

    @pytest.mark.parametrize("cursor", ["nonsense", "", "!!", "MTphYmM", "OTk5OTk5OTk5OTk5OTk5OTk5OmE"])
    async def test_a_made_up_cursor_is_refused_or_ends(self, store: OperationStore, cursor: str) -> None:
        await store.submit(a_submission("op_a"), T0)
        if cursor == "MTphYmM":  # 1:abc, well formed: before everything there is
            assert (await store.page(OperationQuery(cursor=cursor))).operations == ()
        else:
            with pytest.raises(InvalidInput, match="not a cursor"):
                await store.page(OperationQuery(cursor=cursor))

    @pytest.mark.parametrize("limit", [0, -1, 1001])
    async def test_a_page_has_a_sane_size(self, store: OperationStore, limit: int) -> None:
        with pytest.raises(InvalidInput, match=f"limit={limit}"):
            await store.page(OperationQuery(limit=limit))

    async def test_counts_are_per_type_and_status(self, store: OperationStore) -> None:
        assert await store.counts() == {}
        await store.submit(a_submission("op_a"), T0)
        await store.submit(a_submission("op_b"), T0)
        await self.completed(store, "op_t", operation_type=OperationType.TRAINING)
        assert await store.counts() == {
            (OperationType.BACKTESTING, PENDING): 2,
            (OperationType.TRAINING, COMPLETED): 1,
        }

    @pytest.mark.parametrize("seed", range(3))
    async def test_totals_are_exact_whatever_happened(self, store: OperationStore, seed: int) -> None:
        random = Random(seed)  # noqa: S311 - to be repeatable
        names = [f"op_{number}" for number in range(12)]
        news = [
            a_submission(
                name, operation_type=random.choice(list(OperationType)), idempotency_key=f"k{number % 9}"
            )
            for number, name in enumerate(names)
        ]
        changes: list[Coroutine[Any, Any, object]] = [store.submit(new, T0) for new in news]
        for turn in range(6):
            outcomes = await asyncio.gather(*changes, return_exceptions=True)
            expected = (Conflict, InvalidTransition, NotFound)
            assert all(isinstance(o, expected) for o in outcomes if isinstance(o, BaseException))
            seen = (await store.page(OperationQuery(limit=100))).operations
            assert await store.counts() == Counter((o.operation_type, o.status) for o in seen)
            for status in OperationStatus:
                page = await store.page(OperationQuery(statuses=(status,), limit=100))
                assert page.total == len(page.operations) == sum(o.status is status for o in seen)
            for kind in OperationType:
                page = await store.page(OperationQuery(operation_type=kind, limit=2))
                assert page.total == sum(o.operation_type is kind for o in seen)
            changes = [self.something(store, random, o, T0 + turn * SECOND) for o in seen for _ in range(2)]
            random.shuffle(changes)
        for change in changes:
            change.close()

    @staticmethod
    def something(
        store: OperationStore, random: Random, operation: Operation, now: datetime
    ) -> Coroutine[Any, Any, object]:
        """Any event at all, or a deletion."""
        if random.random() < 0.1:
            return store.delete(operation.operation_id)
        assignment = operation.assignment or Assignment("worker-1", "instance-1", 1)
        return store.apply(operation.operation_id, an_event(random.choice(EVENTS), assignment, now), now)

    # --- deleting -------------------------------------------------------------------------------------------------

    async def test_only_what_has_ended_can_be_deleted(self, store: OperationStore) -> None:
        await self.running(store, "op_a")
        with pytest.raises(Conflict, match="op_a is running"):
            await store.delete("op_a")
        await store.get("op_a")
        with pytest.raises(NotFound):
            await store.delete("op_none")

    async def test_deleting_forgets_the_operation_and_its_key(self, store: OperationStore) -> None:
        await self.completed(store, "op_a", idempotency_key="k")
        await store.delete("op_a")
        with pytest.raises(NotFound):
            await store.get("op_a")
        fresh = await store.submit(a_submission("op_b", idempotency_key="k", spec=b"{}"), T0)
        assert fresh.operation_id == "op_b"

    async def test_a_spec_lives_as_long_as_its_last_operation(self, store: OperationStore) -> None:
        digest = (await self.completed(store, "op_a")).spec_digest
        assert (await self.completed(store, "op_b")).spec_digest == digest
        await store.delete("op_a")
        assert await store.spec(digest) == b'{"kind":"backtesting"}'
        await store.delete("op_b")
        with pytest.raises(NotFound):
            await store.spec(digest)

    # --- retention ------------------------------------------------------------------------------------------------

    async def test_old_stories_become_a_line(self, store: OperationStore) -> None:
        ended = [await self.completed(store, f"op_{n}") for n in range(3)]
        running = await self.running(store, "op_running")
        assert await store.compact(T0 + SECOND, 10) == 0, "they end at that moment, not before it"
        found = [await store.compact(T0 + 2 * SECOND, 2) for _ in range(3)]
        assert found == [2, 1, 0]
        for before in ended:
            after = await store.get(before.operation_id)
            [line] = after.story
            assert line == f"{before.story[-1]} ({len(before.story) - 1} lines before it left out)"
            assert replace(after, story=before.story) == before
        assert await store.get("op_running") == running
        await store.apply("op_0", CancelRequested(), T0 + LEASE)
        assert len((await store.get("op_0")).story) == 2
        assert [await store.compact(T0 + 2 * SECOND, 9) for _ in range(2)] == [1, 0]

    async def test_what_ended_long_ago_is_forgotten_and_nothing_else(self, store: OperationStore) -> None:
        digest = (await self.completed(store, "op_a", idempotency_key="k")).spec_digest
        await self.completed(store, "op_b")
        await store.compact(T0 + 2 * SECOND, 1)
        other = (await self.completed(store, "op_c", spec=b"{}")).spec_digest
        running, waiting = await self.running(store, "op_r"), await store.submit(a_submission("op_p"), T0)
        await store.save_model(a_model("m_1", operation_id="op_a"))
        assert await store.expire(T0 + SECOND, 10) in ([], ())
        gone = [*await store.expire(T0 + 2 * SECOND, 2), *await store.expire(T0 + 2 * SECOND, 2)]
        assert sorted(gone) == ["op_a", "op_b", "op_c"]
        assert await store.expire(T0 + 2 * SECOND, 2) in ([], ())
        left = (await store.page(OperationQuery())).operations
        assert {o.operation_id: o for o in left} == {"op_r": running, "op_p": waiting}
        assert sum((await store.counts()).values()) == 2
        assert await store.spec(digest) == b'{"kind":"backtesting"}'
        with pytest.raises(NotFound):
            await store.spec(other)
        assert [model.model_id for model in await store.models()] == ["m_1"]
        fresh = await store.submit(a_submission("op_new", idempotency_key="k"), T0)
        assert fresh.operation_id == "op_new"

    # --- workers and models ---------------------------------------------------------------------------------------

    async def test_workers_are_kept_by_id(self, store: OperationStore) -> None:
        await store.save_worker(a_worker("worker-2"))
        await store.save_worker(a_worker("worker-1"))
        changed = a_worker("worker-2", instance_id="instance-9", draining=True)
        await store.save_worker(changed)
        assert list(await store.workers()) == [a_worker("worker-1"), changed]
        await store.delete_worker("worker-1")
        await store.delete_worker("worker-1")
        assert list(await store.workers()) == [changed]

    async def test_models_are_listed_newest_first(self, store: OperationStore) -> None:
        old, new = a_model("m_1"), a_model("m_2", created_at=T0 + SECOND, symbols=("A", "B"))
        other = a_model("m_3", strategy_name="other", created_at=T0 + LEASE)
        for model in (new, other, old):
            await store.save_model(model)
        assert list(await store.models("sp500_trend")) == [new, old]
        assert list(await store.models()) == [other, new, old]
        assert await store.model("m_2") == new
        with pytest.raises(NotFound, match="did you mean 'm_1'"):
            await store.model("m_11")

    async def test_saving_a_model_again_replaces_it(self, store: OperationStore) -> None:
        await store.save_model(a_model("m_1"))
        await store.save_model(a_model("m_1", metrics={"val_loss": 0.1}))
        assert (await store.model("m_1")).metrics == {"val_loss": 0.1}
        assert len(await store.models()) == 1

    async def test_a_model_is_listed_from_its_completion_on_and_not_without(
        self, store: OperationStore
    ) -> None:
        outcome = JobOutcome(status=OperationStatus.COMPLETED, artifacts={"model": "b" * 64})
        made = a_model("m_1", bundle_digest="b" * 64)
        for operation_id, cancelled in (("op_1", True), ("op_2", False)):
            await store.submit(a_submission(operation_id), T0)
            assigned = await store.apply(operation_id, Assigned("worker-1", "instance-1", T0 + LEASE), T0)
            if cancelled:
                await store.apply(operation_id, CancelRequested(), T0)
            assert assigned.operation.assignment is not None
            await store.apply(operation_id, Finished(assigned.operation.assignment, outcome), T0, model=made)
            assert len(await store.models()) == (0 if cancelled else 1)

    # --- pauses ---------------------------------------------------------------------------------------------------

    async def test_types_are_paused_and_let_go(self, store: OperationStore) -> None:
        backtesting, training = OperationType.BACKTESTING, OperationType.TRAINING
        assert await store.paused() == {}
        assert await store.set_paused([training], T0) == {training: T0}
        later = T0 + timedelta(microseconds=1)
        assert await store.set_paused([backtesting, training], later) == {training: T0, backtesting: later}
        assert await store.paused() == {training: T0, backtesting: later}
        assert await store.set_paused([training], None) == {backtesting: later}
        assert await store.set_paused([training], None) == {backtesting: later}
        assert await store.set_paused([], None) == {backtesting: later}

    async def test_a_pause_hides_nothing(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_a"), T0)
        await store.set_paused(list(OperationType), T0)
        assert [o.operation_id for o in await store.pending(T0, 10)] == ["op_a"]
        assert await store.queue_position("op_a") == 1
