"""The registry's index against the plain definition of what it answers, after any sequence of changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.backend.fleet.registry import WorkerEndpoint, WorkerRegistry, serves
from ktrdr.backend.fleet.turns import Standing, Turns
from ktrdr.clock import SystemClock
from ktrdr.operations.model import Assignment, WorkerRecord, WorkerType
from ktrdr.protocol.messages import HealthView
from ktrdr.settings import ControlSettings

NAMES = ("w1", "w2", "w3", "w4")
STEPS = (
    "register",
    "reserve",
    "release",
    "fail",
    "idle",
    "busy",
    "draining",
    "report",
    "drain",
    "refuse",
    "adopt",
)
changes = st.lists(
    st.tuples(st.sampled_from(STEPS), st.sampled_from(NAMES), st.booleans(), st.booleans()), max_size=40
)


def registry() -> WorkerRegistry:
    return WorkerRegistry(SystemClock(), ControlSettings(health_failures=2), "1.1.0")


def record(name: str, *, gpu: bool = False, training: bool = True, version: str = "1.1.0") -> WorkerRecord:
    return WorkerRecord(
        worker_id=name,
        worker_type=WorkerType.TRAINING if training else WorkerType.BACKTESTING,
        endpoint_url=f"http://{name}",
        instance_id=name,
        capabilities={"gpu": gpu, "version": version},
        registered_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def said(name: str, status: str) -> HealthView:
    return HealthView.model_validate(
        {"worker_status": status, "worker_id": name, "instance_id": name, "version": "1.1.0"}
    )


def change(workers: WorkerRegistry, step: str, name: str, one: bool, other: bool) -> None:
    """One of the things that happen to workers; ``one`` and ``other`` choose between forms of it."""
    worker = workers.find(name)
    if step == "register" or worker is None:
        workers.put(record(name, gpu=one, training=other), verified=one or other)
    elif step == "reserve" and workers.is_free(worker):
        workers.reserve(worker, f"op-{name}-{one}", 1)
    elif step == "release" and worker.reserved_for is not None:
        workers.release(name, *worker.reserved_for)
    elif step == "fail":
        workers.contact_failed(worker, "no answer")
    elif step in ("idle", "busy", "draining"):
        workers.heard(worker, said(name, step), worker.revision - one)
    elif step == "report":
        workers.reported(worker, "idle" if one else "draining", delivered=other)
    elif step == "drain":
        workers.set_draining(name, one)
    elif step == "refuse":
        workers.refused(worker)
    elif step == "adopt":
        workers.adopt(Assignment(name, name, 1), f"op-{name}-{one}")
    if step == "register" and one and other and name == "w4":
        workers.remove(name)


def free(workers: WorkerRegistry, kind: WorkerType, *, gpu: bool) -> list[WorkerEndpoint]:
    return [
        w
        for w in workers
        if w.record.worker_type is kind
        and (w.gpu or not gpu)
        and workers.status(w) == "available"
        and w.verified
        and w.failures == 0
        and w.serves
    ]


@settings(max_examples=150, deadline=None)
@given(changes)
def test_the_index_answers_as_the_definition(steps: list[tuple[str, str, bool, bool]]) -> None:
    workers = registry()
    for step in steps:
        change(workers, *step)
        for kind in WorkerType:
            for gpu in (False, True):
                fit = [w for w in workers if w.record.worker_type is kind and w.serves and (w.gpu or not gpu)]
                usable = [w for w in fit if workers.status(w) in ("available", "busy")]
                assert workers.usable(kind, gpu=gpu) == len(usable)
                idle = [w for w in usable if w.current_operation_id is None]
                assert workers.idle(kind, gpu=gpu) == len(idle)
    for kind in WorkerType:
        for rather_not in (None, "w1"):
            for prefers, requires in ((False, False), (True, False), (False, True)):
                expected = min(
                    free(workers, kind, gpu=requires),
                    key=lambda w: (w.worker_id == rather_not, prefers and not w.gpu, w.turn, w.number),
                    default=None,
                )
                chosen = workers.select(kind, prefer_gpu=prefers, require_gpu=requires, rather_not=rather_not)
                assert chosen is expected
    for worker in workers:
        if worker.current_operation_id is not None:
            assert workers.holds(worker.current_operation_id)
    assert not workers.holds("unknown")


@pytest.mark.parametrize(
    ("worker", "served"),
    [
        ("1.4.0", True),
        ("1.4.9", True),
        ("1.3.0", True),
        ("1.2.9", False),
        ("1.5.0", False),
        ("0.4.0", False),
        ("2.4.0", False),
        ("", True),
        ("0", True),
    ],
)
def test_a_backend_serves_its_own_minor_version_and_the_one_before(worker: str, served: bool) -> None:
    assert serves("1.4.2", worker) is served


def test_a_worker_of_another_minor_version_is_never_chosen() -> None:
    workers = registry()
    workers.put(record("old", version="0.9.0"))
    assert workers.select(WorkerType.TRAINING) is None
    assert workers.usable(WorkerType.TRAINING) == 0


def test_equal_turns_go_by_registration_and_then_everybody_has_a_turn() -> None:
    workers = registry()
    for name in ("b", "a", "c"):
        workers.put(record(name))
    order = []
    for number in range(6):
        worker = workers.select(WorkerType.TRAINING)
        assert worker is not None
        workers.reserve(worker, f"op{number}", 1)
        workers.release(worker.worker_id, f"op{number}", 1)
        order.append(worker.worker_id)
    assert order == ["b", "a", "c", "b", "a", "c"]


@pytest.mark.parametrize("again", ["register", "flap"])
def test_what_no_longer_counts_does_not_pile_up(again: str) -> None:
    workers = registry()
    first = workers.put(record("w1"))
    for _ in range(1000):
        if again == "register":
            workers.put(replace(first.record))
        else:
            worker = workers.get("w1")
            workers.contact_failed(worker, "no answer")
            workers.heard(worker, said("w1", "idle"), worker.revision)
    turns: Turns = workers._turns
    assert sum(len(queue) for queue in turns._queues.values()) < 100
    assert workers.select(WorkerType.TRAINING) is workers.get("w1")


def test_a_standing_that_stays_is_not_noted_twice() -> None:
    workers = registry()
    worker = workers.put(record("w1"))
    standing = worker.standing
    assert standing == Standing(WorkerType.TRAINING, gpu=False, usable=True, free=True, holds=None)
    workers.set_draining("w1", False)
    assert sum(len(queue) for queue in workers._turns._queues.values()) == 1
