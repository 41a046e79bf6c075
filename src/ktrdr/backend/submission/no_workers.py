"""Why there is nobody for an operation, and what to do about it."""

from __future__ import annotations

from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.errors import NoWorkers
from ktrdr.operations.model import WorkerType

__all__ = ["no_workers"]

_NONE = {
    WorkerType.BACKTESTING: "No backtesting workers available. Start one: ktrdr worker start backtesting",
    WorkerType.TRAINING: (
        "No training workers available. Start GPU or CPU training workers: ktrdr worker start training"
    ),
}
_NO_GPU = (
    "No training workers with a GPU available. Start one on a machine with a GPU: ktrdr worker start training, "
    "or do not require one (require_gpu, --require-gpu)."
)
_NAMED = 3


def no_workers(registry: WorkerRegistry, kind: WorkerType, *, gpu: bool) -> NoWorkers:
    """What the user is told; a worker that only drains needs no other one to be started."""
    told = _NO_GPU if gpu else _NONE[kind]
    draining = sorted(
        worker.worker_id
        for worker in registry
        if worker.record.worker_type is kind
        and worker.record.draining
        and registry.status(worker) == "draining"
        and (not gpu or worker.record.capabilities.get("gpu"))
    )
    if not draining:
        return NoWorkers(told)
    more = len(draining) - _NAMED
    names = ", ".join(draining[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    verb = "drains" if len(draining) == 1 else "drain"
    return NoWorkers(f"{told.rstrip('.')}. {names} {verb}: ktrdr workers undrain {draining[0]}")
