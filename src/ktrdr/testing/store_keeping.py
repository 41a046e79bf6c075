"""Laws of an OperationStore: deletion and retention; workers, models and pauses."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ktrdr.errors import Conflict, NotFound
from ktrdr.operations.events import Assigned, CancelRequested, Finished
from ktrdr.operations.model import (
    JobOutcome,
    OperationStatus,
    OperationType,
)
from ktrdr.operations.store import OperationQuery, OperationStore
from ktrdr.testing.operations import (
    LEASE,
    T0,
    a_model,
    a_submission,
    a_worker,
)
from ktrdr.testing.store_lives import SECOND, StoreLaws

__all__ = ["KeepingLaws"]


class KeepingLaws(StoreLaws):
    """What is kept, for how long, and what goes with it."""

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
