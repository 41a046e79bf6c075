"""Planted bugs in the backend: registry, dispatch, health, submission, enrolment."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["BACKEND_BUGS"]

_REGISTRY, _DISPATCH, _WIRING = (
    "backend/fleet/registry.py",
    "backend/dispatch/dispatcher.py",
    "backend/wiring.py",
)
_HEALTH, _LEASES, _SERVICE = (
    "backend/dispatch/health.py",
    "backend/fleet/leases.py",
    "backend/operations/service.py",
)
_ENROL, _SUBMIT = "backend/dispatch/enrolment.py", "backend/submission/orchestrator.py"
_DRAINS = "if worker.record.draining or worker.drains_itself:"
_FREE = 'status == "available" and worker.verified and worker.failures == 0'
_SAME = "if old.record.instance_id == record.instance_id:"
_RECORD = "            return await use.dispatcher.submit(new)\n"
_CLAIM = "        if not claims:\n            return False\n"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


BACKEND_BUGS = (
    _bug(
        "a result from any worker counts",
        _SERVICE,
        'assignment = Assignment(worker_id, instance or "", delivery.attempt)',
        'assignment = operation.assignment or Assignment(worker_id, "", delivery.attempt)',
    ),
    _bug(
        "a delivery is acknowledged before its commit",
        _SERVICE,
        "        await self.apply(delivery.operation_id, _event_of(delivery, assignment), model)\n",
        "        work = self.apply(delivery.operation_id, _event_of(delivery, assignment), model)\n"
        '        self._fleet.spawn(work, "deliver")\n',
    ),
    _bug(
        "a slot stays taken after the end",
        _SERVICE,
        "        self._registry.release(operation.worker_id, operation_id, operation.attempt)\n",
        "",
    ),
    Mutant(
        "known progress piles up",
        (
            Patch(_SERVICE, "            self.progress.forget(operation_id)\n", "            pass\n"),
            Patch(_HEALTH, "        self._operations.progress.retain(live)\n", ""),
        ),
    ),
    Mutant(
        "the slot of a crashed worker stays taken",
        (
            Patch(_REGISTRY, _SAME, "if old.record.worker_id == record.worker_id:"),
            Patch(
                _SERVICE,
                "        self._registry.release(operation.worker_id, operation_id, operation.attempt)\n",
                '        if type(event).__name__ not in ("WorkerLost", "LeaseExpired"):\n'
                "            self._registry.release(operation.worker_id, operation_id, operation.attempt)\n",
            ),
        ),
    ),
    _bug(
        "registering twice doubles the capacity",
        _REGISTRY,
        _SAME,
        "if old.record.instance_id == record.worker_id:",
    ),
    _bug(
        "paused operations are dispatched",
        _DISPATCH,
        "        if kind in self._operations.pauses.known:\n            return None\n",
        "",
    ),
    _bug("drained workers are chosen", _REGISTRY, _DRAINS, "if worker.drains_itself:"),
    _bug("workers that leave are chosen", _REGISTRY, _DRAINS, "if worker.record.draining:"),
    _bug("dead workers are chosen", _REGISTRY, _FREE, 'status == "available" and worker.verified'),
    _bug(
        "workers that nobody probed are chosen",
        _REGISTRY,
        _FREE,
        'status == "available" and worker.failures == 0',
    ),
    Mutant(
        "a registration undoes a drain",
        (
            Patch(
                _REGISTRY,
                "            record = replace(record, draining=old.record.draining)\n",
                "            pass\n",
            ),
            Patch(_ENROL, "draining=self._drains.held(request.worker_id),", "draining=False,"),
        ),
    ),
    _bug(
        "202 before the commit",
        _SUBMIT,
        _RECORD,
        "            from ktrdr.operations.machine import new_operation\n\n"
        "            asyncio.ensure_future(use.dispatcher.submit(new))\n"
        "            return new_operation(new, use.clock.now())\n",
    ),
    _bug(
        "idempotency keys are forgotten at a crash",
        _SUBMIT,
        _RECORD,
        '            seen = use.dispatcher.__dict__.setdefault("seen", {})\n'
        "            if idempotency_key not in seen:\n"
        "                from dataclasses import replace\n\n"
        "                operation = await use.dispatcher.submit(replace(new, idempotency_key=None))\n"
        "                seen[idempotency_key] = operation.operation_id\n"
        "            return await use.store.get(seen[idempotency_key])\n",
    ),
    _bug(
        "dispatched before the commit",
        _DISPATCH,
        _CLAIM,
        "        for o in pending:\n"
        "            if o.operation_id in claims:\n"
        "                claim, attempt = claims[o.operation_id]\n"
        "                early = Assignment(claim.event.worker_id, claim.event.instance_id, attempt)\n"
        f'                self._fleet.spawn(self.deliver(o, early), "early")\n{_CLAIM}',
    ),
    _bug(
        "assigned without a reservation",
        _DISPATCH,
        "        self._registry.reserve(worker, operation_id, attempt)\n",
        "",
    ),
    _bug(
        "a reservation outlives an assignment that was not recorded",
        _DISPATCH,
        "            self._registry.release(event.worker_id, claim.operation_id, attempt)\n            self.wake()\n",
        "            self.wake()\n",
    ),
    _bug(
        "nobody wakes the dispatcher",
        _DISPATCH,
        "        self._woken.set()\n",
        "        self._woken.clear()\n",
    ),
    _bug(
        "an assignment that nobody answered goes to another worker at once",
        _DISPATCH,
        "                await self._operations.apply(operation_id, Unreachable(assignment, str(error)))\n",
        "                await self._refused(operation_id, assignment, str(error))\n",
    ),
    _bug(
        "after a restart slots in use are free",
        _WIRING,
        "            self.registry.reserve(worker, operation.operation_id, assignment.attempt)\n",
        "",
    ),
    _bug(
        "leases end right after a restart",
        _WIRING,
        "            self.operations.leases.seen(operation)  # a full period from here on\n",
        "            self.operations.leases.seen(operation)\n"
        "            if operation.operation_id in self.operations.leases._seen:\n"
        "                self.operations.leases._seen[operation.operation_id].vouched_at = -1e9\n",
    ),
    _bug(
        "a renewal in the ledger does not count",
        _LEASES,
        "if known is None or known.renewal != renewal:",
        "if known is None:",
    ),
    _bug("a vouching that is not written does not count", _LEASES, "        known.vouched_at = now\n", ""),
    _bug(
        "an outbox is acknowledged and thrown away",
        _ENROL,
        "                await self._operations.deliver(request.worker_id, delivery, key)\n",
        "",
    ),
)
