"""Places in a long queue, from its end and from its front, are those that sorting gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from ktrdr.errors import NotFound, Unavailable
from ktrdr.operations.events import Assigned
from ktrdr.operations.model import NewOperation, OperationType
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.sql.together import Together
from ktrdr.testing.operations import LEASE, T0


async def test_every_place_in_a_long_queue(tmp_path: Path) -> None:
    store, rng = SqlStore(tmp_path / "ledger.db"), Random(1)
    kinds, priorities = list(OperationType), [0] * 6 + [3, 5]
    news = [
        NewOperation(
            operation_id=f"op_{number}",
            operation_type=kinds[number % 4 == 0],
            spec=b"{}",
            priority=rng.choice(priorities),
        )
        for number in range(700)
    ]
    await asyncio.gather(
        *(store.submit(new, T0 + timedelta(seconds=rng.randrange(300))) for new in news[:-1])
    )
    running = Assigned("worker", "instance", T0 + LEASE)
    await store.submit(news[-1], T0, assign=running)
    queue = await store.pending(T0, 1000)
    expected = {
        operation.operation_id: place
        for kind in kinds
        for place, operation in enumerate((o for o in queue if o.operation_type is kind), start=1)
    }
    at_once = await asyncio.gather(*(store.queue_position(name) for name in expected))
    assert dict(zip(expected, at_once, strict=True)) == expected
    some = rng.sample(sorted(expected), 20)
    assert [await store.queue_position(name) for name in some] == [expected[name] for name in some]
    assert await store.queue_position("op_699") is None
    with pytest.raises(NotFound):
        await store.queue_position("op_none")
    await store.close()


async def test_what_is_asked_meanwhile_is_asked_together() -> None:
    asked, gate = list[list[int]](), asyncio.Event()

    async def read(keys: Sequence[int]) -> dict[int, str]:
        asked.append(list(keys))
        await gate.wait()
        return {key: str(key) for key in keys}

    questions = Together(read)
    first = asyncio.create_task(questions.ask(1))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(questions.ask(number)) for number in (2, 3, 2, 1)]
    await asyncio.sleep(0.01)
    others[0].cancel()
    gate.set()
    assert (await first)[1] == "1"
    assert [found[2] for found in await asyncio.gather(*others[1:])] == ["2", "2", "2"]
    assert asked == [[1], [2, 3, 1]], "an answer is never older than its question"


async def test_whoever_asked_learns_that_it_failed() -> None:
    async def read(keys: Sequence[int]) -> dict[int, str]:
        raise Unavailable("The ledger is closed.")

    questions = Together(read)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await questions.ask(1)
