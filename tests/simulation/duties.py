"""What operators do to many at once, or to no effect; each is done now and then by the chief."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ktrdr.operations.model import OperationType
from ktrdr.protocol.queueing import OperationsCancelled

if TYPE_CHECKING:
    from simulation.people import Operator
    from simulation.worker import SimulatedWorker

__all__ = ["cancel_all", "change_nothing", "update", "withdraw"]


async def cancel_all(operator: Operator) -> None:
    """Cancel what waits, or all of one type; repeated while there is more."""
    body = operator.random.choice(
        (
            {"status": ["pending"]},
            {"operation_type": OperationType.TRAINING.value},
            {"operation_type": OperationType.BACKTESTING.value},
        )
    )
    while True:
        answer = await operator.insist("POST", "/operations/cancel", body)
        told = OperationsCancelled.model_validate_json(answer.body)
        if not told.more:
            return
        body = {**body, "before": told.before.isoformat()}


async def change_nothing(operator: Operator, worker: SimulatedWorker) -> None:
    """What is so already is ordered once more: the answer is good, and all is as before."""
    path = f"/workers/{worker.worker_id}/undrain"
    with operator.in_hand(worker.worker_id) as free:
        if free:
            first = await operator.ask("POST", path)
            again = await operator.ask("POST", path)
            if first is not None and again is not None and first.ok and again.ok:
                operator.trace.situations["change of nothing"] += 1
    await operator.insist("POST", "/queue/unpause", {})


async def update(operator: Operator, worker: SimulatedWorker, version: str, then: str) -> None:
    """A worker is brought to a version, which may be too new for the backend, and after a while to another."""
    for now in (version, then):
        await worker.leave()
        worker.version = now
        if worker.process is None:
            worker.start()
        operator.trace.situations["worker of another version"] += now != then
        await operator.rest(20.0, 60.0)


async def withdraw(operator: Operator) -> None:
    """The token of some workers is withdrawn; after a while they are started with another one."""
    passes = operator.laws.passes
    if not passes.guarded or not passes.renewable:
        return
    group = operator.random.choice(passes.renewable)
    await operator.insist("DELETE", f"/tokens/{passes.name_of(group)}")
    operator.trace.situations["token withdrawn"] += 1
    await operator.rest(15.0, 90.0)
    answer = None
    while answer is None or answer.status != 201:  # else one of this name was made, and nobody knows its text
        body = {"name": passes.next_name(group), "scopes": ["worker"]}
        answer = await operator.insist("POST", "/tokens", body)
    passes.hand_out(group, answer.body.decode())
    theirs = [worker for worker in operator.workers if passes.group_of(worker.worker_id) == group]
    await asyncio.gather(*(operator.stop(worker) for worker in theirs))
