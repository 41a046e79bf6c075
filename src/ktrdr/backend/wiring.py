"""The backend put together: which part gets which, what starts and in which order it stops."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.access.audit import AuditLog
from ktrdr.backend.access.tokens import TokenBook
from ktrdr.backend.cluster.company import Company
from ktrdr.backend.cluster.sharing import Cluster, open_cluster
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.data import DataService
from ktrdr.backend.dispatch.dispatcher import Dispatcher
from ktrdr.backend.dispatch.enrolment import Enrolment
from ktrdr.backend.dispatch.health import HealthLoop
from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.backend.operations.checkpoints import CheckpointFiles
from ktrdr.backend.operations.feeds import Feeds
from ktrdr.backend.operations.hub import Hub
from ktrdr.backend.operations.joblogs import JobLogs
from ktrdr.backend.operations.results import ResultsService
from ktrdr.backend.operations.service import OperationsService
from ktrdr.backend.submission.orchestrator import Resources
from ktrdr.backend.submission.services import BacktestingService, TrainingService
from ktrdr.backend.telemetry.metrics import BackendMetrics
from ktrdr.backend.telemetry.tracing import OperationTraces
from ktrdr.backend.upkeep.garbage import ArtifactGarbage
from ktrdr.backend.upkeep.housekeeping import Housekeeping
from ktrdr.backup.unfinished import refuse_half_restored
from ktrdr.clock import Clock, SystemClock
from ktrdr.operations.machine import Transition
from ktrdr.operations.model import OperationStatus
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.store import OperationStore
from ktrdr.private import private_folder
from ktrdr.protocol.tls_renewal import connecting
from ktrdr.protocol.transports import AiohttpTransport, Transport
from ktrdr.strategies import StrategyLibrary, example_root
from ktrdr.tracing import Traces

__all__ = ["Backend", "Parts"]

_log = logging.getLogger("ktrdr.backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a test may replace; None means the real one."""

    store: OperationStore | None = None
    transport: Transport | None = None
    clock: Clock | None = None
    random: Random | None = None
    traces: Traces | None = None
    cluster: Cluster | None = None


class Backend:
    """Everything behind the routes. ``start`` and ``stop`` are called inside the event loop that serves them."""

    def __init__(
        self, config: BackendConfig, parts: Parts | None = None, *, address: str | None = None
    ) -> None:
        refuse_half_restored(config.home)
        parts = parts or Parts()
        self.config = config
        self.clock = parts.clock or SystemClock()
        self.random = parts.random or SystemRandom()
        self.started_at = self.clock.monotonic()
        self.artifacts = FileArtifactStore(config.home / "artifacts")
        self.hub = Hub()
        self.registry = WorkerRegistry(self.clock, config.control, config.version)
        self.fleet = Fleet(
            parts.transport or AiohttpTransport(config.networks, tls=connecting(config.tls)),
            config.worker_token,
            config.control.http_timeout_s,
            config.control.health_timeout_s,
            secret=config.api_token,
        )
        self.store, cluster = _open(config, parts, address)
        self.audit = AuditLog(config.home / "audit", self.clock)
        self.tokens = TokenBook(self.store.access, self.clock)
        self.logs = self._job_logs()
        self.operations = OperationsService(
            self.store, self.registry, self.fleet, self.hub, self.clock, config.control, self.logs
        )
        self.operations.checkpoint_files = CheckpointFiles(self.store, self.artifacts)
        self.feeds = Feeds(self.operations, self.hub, self.fleet, config.control.progress_ttl_s)
        self.metrics = BackendMetrics(config.version)
        self.traces = parts.traces or Traces()
        spans = OperationTraces(self.traces, self.clock)
        self.operations.observe = _both(self.metrics.observe, spans.observe)
        self.operations.traceparent = spans.traceparent
        self.health = HealthLoop(self.operations, self.registry, self.fleet, self.clock, config.control)
        self.health.worthless = self.tokens.worthless
        self.housekeeping = Housekeeping(
            self.operations, self.clock, timedelta(days=config.control.retention_days)
        )
        self.dispatcher = self._dispatcher()
        self.enrolment = Enrolment(
            config, self.operations, self.registry, self.health, self.fleet, self.clock, self.artifacts
        )
        self.results = ResultsService(self.operations, self.artifacts, self.registry, self.fleet)
        self.garbage = self._garbage()
        self.data = DataService(config.home / "market", self.artifacts)
        self.library = StrategyLibrary(
            [*(config.strategy_roots or (config.home / "strategies",)), example_root()]
        )
        resources = self._resources(spans)
        self.backtesting = BacktestingService(resources)
        self.training = TrainingService(resources)
        self._loops: list[asyncio.Task[Any]] = []
        self._company = None if cluster is None else Company(self, cluster)
        self.metrics.leads = lambda: self.leads

    def _job_logs(self) -> JobLogs:
        return JobLogs(
            self.config.home / "job-logs",
            self.artifacts,
            self.registry,
            self.fleet,
            self.clock,
            self.config.control.progress_ttl_s,
        )

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.operations,
            self.registry,
            self.fleet,
            self.clock,
            self.config.control,
            needs_probe=self.health.probe_soon,
        )

    def _garbage(self) -> ArtifactGarbage:
        return ArtifactGarbage(
            self.store,
            self.artifacts,
            self.config.home / "market",
            self.config.home / "artifact-gc.json",
            self.clock,
            self.config.control.artifact_grace_s,
        )

    def _resources(self, spans: OperationTraces) -> Resources:
        return Resources(
            store=self.store,
            registry=self.registry,
            dispatcher=self.dispatcher,
            data=self.data,
            library=self.library,
            artifacts=self.artifacts,
            clock=self.clock,
            random=self.random,
            submitted=spans.submitted,
            fresh=self._fresh,
        )

    @property
    def leads(self) -> bool:
        """Whether this backend dispatches and hears workers."""
        return self._company is None or self._company.roles.epoch is not None

    @property
    def epoch(self) -> int | None:
        """The newest term that is known; None where the ledger admits one backend only."""
        return None if self._company is None else self._company.epoch

    def must_lead(self) -> None:
        """Raises NotLeader unless this backend leads."""
        if self._company is not None:
            self._company.must_lead()

    async def must_lead_or_say_why(self) -> None:
        """The same; says so where the ledger does not answer and no other leader is known."""
        if self._company is not None:
            await self._company.must_lead_or_say_why()

    async def _fresh(self) -> None:
        if self._company is not None:
            await self._company.mirror.fresh()

    def scratch(self) -> Path:
        """Where uploads wait; on the disk of the data, which has room for them."""
        folder = self.config.home / "uploads"
        if self._company is not None:
            folder /= self._company.own_folder
        return private_folder(folder)

    async def start(self) -> None:
        """Clear what an earlier process left half-written, then lead, or find out who leads."""
        await asyncio.to_thread(self._tidy)
        if self._company is not None:
            await self._company.roles.start()
            return
        await self.take_over()
        self._loops = [asyncio.create_task(loop) for loop in self.leading()]

    def leading(self) -> list[Coroutine[Any, Any, None]]:
        """What a leader does all the time."""
        self.dispatcher.wake()
        return [
            self.dispatcher.run(),
            self.health.run_probes(),
            self.health.run_sweeps(),
            self.housekeeping.run(),
            self.garbage.run(),
            self.logs.tidy(self.store),  # once; nobody waits for it
        ]

    async def take_over(self) -> None:
        """Read the ledger and take up what runs."""
        self.logs.pulls = True
        await self.operations.pauses.read()
        records, live = await self.store.workers(), await self.store.live()
        for mirrored in self.registry:
            self.registry.remove(mirrored.worker_id)
        for record in records:
            self.registry.put(record, verified=False)
        self.operations.leases.honour_all()
        for operation in live:
            self.operations.leases.seen(operation)  # a full period from here on
            assignment = operation.assignment
            if assignment is None:
                continue
            worker = self.registry.find(assignment.worker_id)
            if worker is None or worker.record.instance_id != assignment.instance_id:
                continue  # its lease ends, unless the worker registers and vouches for it
            self.registry.reserve(worker, operation.operation_id, assignment.attempt)
            if operation.status is OperationStatus.ASSIGNED:
                # whether the worker heard of it is unknown; telling it again is harmless
                work = self.dispatcher.deliver(operation, assignment, doubtful=True)
                self.fleet.spawn(
                    work,
                    f"start {operation.operation_id}",
                    operation_id=operation.operation_id,
                    worker_id=assignment.worker_id,
                )
            else:
                self.registry.adopt(assignment, operation.operation_id)

    def _tidy(self) -> None:
        if self._company is None:  # the ledger's lock says: nobody uses it
            shutil.rmtree(self.config.home / "uploads", ignore_errors=True)
        else:
            self._company.tidy(self.config.home / "uploads")
        self.artifacts.clear_torn()

    async def stop(self) -> None:
        """End the loops and the connections, then close the ledger; operations go on at their workers."""
        self.hub.close()
        if self._company is not None:
            await self._company.stop()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.fleet.close()
        await self.tokens.close()
        await self.audit.close()
        await asyncio.to_thread(self.traces.close)
        await self.store.close()


def _both(
    one: Callable[[Transition], None], other: Callable[[Transition], None]
) -> Callable[[Transition], None]:
    def observe(transition: Transition) -> None:
        one(transition)
        other(transition)

    return observe


def _open(config: BackendConfig, parts: Parts, address: str | None) -> tuple[OperationStore, Cluster | None]:
    """The ledger, and the company of backends that share it."""
    if parts.store is not None:
        return parts.store, parts.cluster
    store = SqlStore(config.database or config.home / "ktrdr.db", max_failures=config.control.max_failures)
    try:
        return store, open_cluster(store, config, address)
    except BaseException:
        store.close_now()
        raise
