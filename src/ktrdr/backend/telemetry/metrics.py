"""The backend in numbers, for Prometheus: what is counted as it happens, and what is read at each scrape.

Every backend has a registry of its own, so that several can live in one process. Label values are worker types,
statuses and the ids of registered workers; no operation has series of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.backend.telemetry.looplag import LoopWatch
from ktrdr.operations.machine import Transition
from ktrdr.operations.model import TERMINAL, OperationStatus, OperationType, WorkerType
from ktrdr.protocol.messages import HealthView

__all__ = ["CONTENT_TYPE", "BackendMetrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_DISPATCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
_DURATION_BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)
_STATES = {  # metric -> (status, help); the names are part of the contract
    "ktrdr_workers_available": ("available", "Workers that are free to take work."),
    "ktrdr_workers_busy": ("busy", "Workers that run an operation."),
    "ktrdr_workers_draining": ("draining", "Workers that finish what they run and take no more."),
    "ktrdr_workers_unavailable": ("temporarily_unavailable", "Workers that do not answer their probes."),
}
_Counts = Mapping[tuple[OperationType, OperationStatus], int]


class _Seen(NamedTuple):
    """A worker at the moment of a scrape; by its id."""

    worker_id: str
    worker_type: WorkerType
    status: str
    health: HealthView | None


class BackendMetrics:
    """Counts what passes through the ledger, and renders everything on request.

    Counters and histograms begin at zero with each start of the backend, as Prometheus expects.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self.leads: Callable[[], bool] = lambda: True
        self._finished = Counter(
            "ktrdr_operations_finished",
            "Operations that reached their end, by type and by how they ended.",
            ("operation_type", "status"),
            registry=None,
        )
        self._dispatch = Histogram(
            "ktrdr_operation_dispatch_seconds",
            "From the submission of an operation to its first acceptance by a worker.",
            ("operation_type",),
            buckets=_DISPATCH_BUCKETS,
            registry=None,
        )
        self._duration = Histogram(
            "ktrdr_operation_duration_seconds",
            "From the first acceptance of an operation by a worker to its end.",
            ("operation_type", "status"),
            buckets=_DURATION_BUCKETS,
            registry=None,
        )
        self.refused = Counter(
            "ktrdr_submissions_refused",
            "Submissions that were refused because the backend had more of them than it could record in a moment.",
            registry=None,
        )
        for kind in OperationType:  # a rate needs the zero before the first event
            self._dispatch.labels(kind.value)
            for status in TERMINAL:
                self._finished.labels(kind.value, status.value)
                self._duration.labels(kind.value, status.value)
        self._unaccepted: set[str] = set()
        self.loop = LoopWatch()

    def observe(self, transition: Transition) -> None:
        """Take note of a change in the ledger; what was ignored there is ignored here."""
        operation = transition.operation
        if transition.outcome == "ignored":
            return
        kind, operation_id = operation.operation_type.value, operation.operation_id
        if operation.status is OperationStatus.ASSIGNED and operation.started_at is None:
            self._unaccepted.add(operation_id)
        elif operation.status is OperationStatus.RUNNING and operation_id in self._unaccepted:
            self._unaccepted.discard(operation_id)
            assert operation.started_at is not None
            self._dispatch.labels(kind).observe((operation.started_at - operation.created_at).total_seconds())
        elif operation.status.terminal:
            self._unaccepted.discard(operation_id)
            self._finished.labels(kind, operation.status.value).inc()
            if operation.started_at is not None and operation.completed_at is not None:
                took = operation.completed_at - operation.started_at
                self._duration.labels(kind, operation.status.value).observe(took.total_seconds())

    async def render(
        self, workers: WorkerRegistry, counts: _Counts, paused: Collection[OperationType]
    ) -> bytes:
        """Everything in Prometheus' text format, of this moment.

        The text of ten thousand workers takes a second; it is made on a thread, so that nobody waits for it.
        """
        seen = [_Seen(w.worker_id, w.record.worker_type, workers.status(w), w.health) for w in workers]
        seen.sort(key=itemgetter(0))
        loop = list(self.loop.collect())
        return await asyncio.to_thread(self._text, seen, loop, counts, paused)

    def _text(
        self,
        seen: Sequence[_Seen],
        loop: Iterable[Metric],
        counts: _Counts,
        paused: Collection[OperationType],
    ) -> bytes:
        scrape = CollectorRegistry(auto_describe=False)
        families = [*self._backend(), *loop, *_operations(counts), *_pauses(paused), *_workers(seen)]
        scrape.register(_Snapshot(families))
        for metric in (self._finished, self._dispatch, self._duration, self.refused):
            scrape.register(metric)
        ProcessCollector(registry=scrape)  # CPU, memory and descriptors of the backend itself
        return generate_latest(scrape)

    def _backend(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "ktrdr_build_info", "Always 1; the label is the version.", labels=("version",)
        )
        info.add_metric((self._version,), 1)
        yield info
        leader = GaugeMetricFamily(
            "ktrdr_backend_leader", "1 if this backend dispatches, 0 if it follows another one of its ledger."
        )
        leader.add_metric((), float(self.leads()))
        yield leader


class _Snapshot:
    """Families that were made for one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _operations(counts: _Counts) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "ktrdr_operations", "Operations in the ledger.", labels=("operation_type", "status")
    )
    for kind in OperationType:
        for status in OperationStatus:
            family.add_metric((kind.value, status.value), counts.get((kind, status), 0))
    yield family


def _pauses(paused: Collection[OperationType]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "ktrdr_queue_paused", "1 if nothing of the type is dispatched, else 0.", labels=("operation_type",)
    )
    for kind in OperationType:
        family.add_metric((kind.value,), float(kind in paused))
    yield family


def _workers(seen: Sequence[_Seen]) -> Iterator[Metric]:
    tally = Tally((worker.worker_type, worker.status) for worker in seen)
    total = GaugeMetricFamily("ktrdr_workers_total", "Registered workers.", labels=("worker_type",))
    for kind in WorkerType:
        total.add_metric((kind.value,), sum(count for (of, _), count in tally.items() if of is kind))
    yield total
    for name, (state, text) in _STATES.items():
        family = GaugeMetricFamily(name, text, labels=("worker_type",))
        for kind in WorkerType:
            family.add_metric((kind.value,), sum(n for key, n in tally.items() if key == (kind, state)))
        yield family
    yield from _each_worker(seen)


def _each_worker(seen: Iterable[_Seen]) -> Iterator[Metric]:
    """What each worker last said of itself; nothing of one that does not answer, because it would be stale."""
    labels = ("worker_id", "worker_type")

    def family(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"ktrdr_worker_{name}", text, labels=labels)

    up = family("up", "1 if the worker answers its probes, else 0.")
    cpu = family(
        "cpu_percent", "CPU use of the worker's own process since the probe before; 100 is one core."
    )
    rss = family("resident_memory_bytes", "Resident memory of the worker's own process.")
    disk = family("disk_free_bytes", "Free space on the disk of the worker's KTRDR_HOME.")
    gpu = family("gpu_memory_bytes", "Memory of all the worker's GPUs together.")
    for worker in seen:
        key = (worker.worker_id, worker.worker_type.value)
        answers = worker.status != "temporarily_unavailable"
        up.add_metric(key, float(answers))
        health = worker.health
        if not answers or health is None:
            continue
        said = ((cpu, health.cpu), (rss, health.rss), (disk, health.disk_free), (gpu, _gpu_bytes(health.gpu)))
        for gauge, value in said:
            if value is not None:
                gauge.add_metric(key, value)
    yield from (up, cpu, rss, disk, gpu)


def _gpu_bytes(gpu: Mapping[str, object]) -> float | None:
    """All GPUs' memory, from their number and the memory of one; None where there is none or it was not said."""
    each, count = gpu.get("gpu_memory_gb"), gpu.get("gpu_count")
    if not isinstance(each, int | float) or not isinstance(count, int) or not gpu.get("gpu"):
        return None
    return float(each) * count * 2**30
