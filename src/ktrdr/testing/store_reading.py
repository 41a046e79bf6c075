"""Laws of an OperationStore: queues, pages and totals."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from datetime import datetime, timedelta
from itertools import product
from random import Random
from typing import Any

import pytest

from ktrdr.errors import Conflict, InvalidInput, InvalidTransition, NotFound
from ktrdr.operations.events import Assigned, CancelRequested, Finished, Refused
from ktrdr.operations.machine import EVENTS
from ktrdr.operations.model import (
    Assignment,
    JobOutcome,
    Operation,
    OperationStatus,
    OperationType,
)
from ktrdr.operations.store import LONGEST_WAIT, OperationQuery, OperationStore
from ktrdr.testing.operations import (
    LEASE,
    T0,
    a_submission,
    an_event,
    assigned_to,
)
from ktrdr.testing.store_lives import COMPLETED, FAILED, PENDING, RUNNING, SECOND, StoreLaws

__all__ = ["ReadingLaws"]


class ReadingLaws(StoreLaws):
    """What is read, in which order, and that totals are exact."""

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

    async def test_pending_may_be_asked_for_one_type(self, store: OperationStore) -> None:
        await store.submit(a_submission("op_b"), T0)
        await store.submit(a_submission("op_t", operation_type=OperationType.TRAINING), T0 + SECOND)
        for kind, name in ((OperationType.BACKTESTING, "op_b"), (OperationType.TRAINING, "op_t")):
            assert [o.operation_id for o in await store.pending(T0, 10, [kind])] == [name]
        assert await store.pending(T0, 10, []) == ()

    async def test_pending_may_leave_out_what_requires_a_gpu(self, store: OperationStore) -> None:
        kinds = (OperationType.TRAINING, OperationType.BACKTESTING)
        for kind, required in product(kinds, (True, False)):
            name = f"op_{kind}_{required}"
            wants = {"require_gpu": required, "prefer_gpu": True}
            await store.submit(a_submission(name, operation_type=kind, requirements=wants), T0)
        for without in (kinds[:0], kinds[:1], kinds[1:], kinds):
            found = {o.operation_id for o in await store.pending(T0, 10, kinds, without)}
            assert found == {
                f"op_{k}_{r}" for k, r in product(kinds, (True, False)) if not (r and k in without)
            }

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

    async def test_held_is_what_one_worker_has_of_it(self, store: OperationStore) -> None:
        for number, worker_id in enumerate(("w1", "w2", "w1", "w1")):
            await store.submit(a_submission(f"op_{number}"), T0 + number * SECOND)
            await store.apply(f"op_{number}", Assigned(worker_id, "i", T0 + LEASE), T0)
        await store.apply("op_2", CancelRequested(), T0)
        failed = JobOutcome(status=OperationStatus.FAILED, error="it broke")
        await store.apply("op_3", Finished(Assignment("w1", "i", 1), failed), T0)
        await store.submit(a_submission("op_pending"), T0)
        assert [o.operation_id for o in await store.held("w1")] == ["op_0", "op_2"]
        assert await store.held("w3") == ()

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
