"""Registration and reports: how workers come, speak and go."""

from __future__ import annotations

import asyncio
import logging

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.dispatch.drains import Drains
from ktrdr.backend.dispatch.health import HealthLoop
from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.endpoints import check_endpoint, wrong_endpoint
from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.backend.operations.service import OperationsService
from ktrdr.clock import Clock
from ktrdr.errors import Conflict, Forbidden, KtrdrError, NotFound, Unavailable
from ktrdr.operations.model import WorkerRecord, WorkerType
from ktrdr.protocol.messages import (
    DeliverRequest,
    HealthView,
    RegisterRequest,
    RegisterResponse,
    ReportRequest,
    ReportResponse,
    WorkerView,
)
from ktrdr.protocol.worker_key import proves

__all__ = ["Enrolment"]

_log = logging.getLogger("ktrdr.backend")
_LOOK_S, _LOOKS = 0.1, 30
_ALIASES = {"gpu_host": WorkerType.TRAINING, "cpu_training": WorkerType.TRAINING}


def _check_key(key: str | None, worker_id: str, instance_id: str) -> None:
    if not proves(key, instance_id):
        raise Forbidden(
            f"This is not worker '{worker_id}': the key that it shows is not that worker's. A worker keeps its key in "
            "its KTRDR_HOME; one that lost it, or another one, needs its own WORKER_ID."
        )


class Enrolment:
    """Takes registrations and reports."""

    def __init__(
        self,
        config: BackendConfig,
        operations: OperationsService,
        registry: WorkerRegistry,
        health: HealthLoop,
        fleet: Fleet,
        clock: Clock,
        artifacts: FileArtifactStore,
    ) -> None:
        self._config = config
        self._operations = operations
        self._registry = registry
        self._health = health
        self._fleet = fleet
        self._clock = clock
        self._artifacts = artifacts
        self._drains = Drains(operations.store, registry)

    async def register(
        self, request: RegisterRequest, key: str | None = None, *, token_id: str | None = None
    ) -> RegisterResponse:
        """Take a worker in, having reached it at the endpoint it names; repeating it changes nothing.

        ``key`` is what the worker shows to prove that it is who it says (:mod:`ktrdr.protocol.worker_key`), ``token_id``
        names the ledger's token that opened the door to it, if it was one.

        Raises
        ------
        InvalidInput
            If the endpoint is not allowed, does not answer, or another worker answers there.
        Conflict
            If a worker of this id is alive elsewhere.
        Forbidden
            If the key does not belong to the instance.
        """
        _check_key(key, request.worker_id, request.instance_id)
        endpoint = await check_endpoint(request.endpoint_url, self._config.networks)
        view = await self._reach(endpoint, request)
        await self._refuse_double(endpoint, request, key)
        acknowledged = await self._take_outbox(request, key)
        async with self._registry.writing.of(request.worker_id):
            record = self._record(endpoint, request, token_id)
            await self._operations.store.save_worker(record)
            unknown = self._registry.find(request.worker_id) is None
            held = await self._operations.store.held(request.worker_id) if unknown else ()
            known = self._registry.find(request.worker_id)
            accepted = known.reserved_for if known is not None and known.accepted else None
            worker = self._registry.put(record)
        # one that says it is busy is not free, not for a moment
        self._registry.heard(worker, view, worker.revision)
        if known is None:  # forgotten by mistake, or by a backend that ended: what it has, the ledger knows
            for operation in held:
                if operation.assignment is not None:
                    self._registry.adopt(operation.assignment, operation.operation_id)
        if known is None or known.record.instance_id != request.instance_id:
            accepted = worker.reserved_for
            _log.info("Worker %s registered from %s", request.worker_id, endpoint)
        # each time: the first registration of this instance may have stopped here, for want of the ledger
        await self._health.lose(request.worker_id, request.instance_id, "it restarted")
        stop = await self._claims(request)
        await self._health.observe(worker, view, worker.revision, accepted)
        self._operations.wake()
        shown = self._registry.view(worker)
        return RegisterResponse(
            worker_id=request.worker_id,
            worker_type=record.worker_type,
            status=shown.status,
            message=shown.reason if shown.reason and not worker.serves else f"Registered at {endpoint}.",
            stop=stop,
            acknowledged=acknowledged,
            credential=self._fleet.credential(record),
        )

    async def _reach(self, endpoint: str, request: RegisterRequest) -> HealthView:
        try:
            view = await self._fleet.probe(endpoint).health()
        except KtrdrError as error:
            raise wrong_endpoint(
                f"The backend cannot reach the worker at {endpoint}: {error} "
                "Set WORKER_ENDPOINT_URL to an address that is reachable from the backend."
            ) from None
        if (view.worker_id, view.instance_id) != (request.worker_id, request.instance_id):
            raise wrong_endpoint(
                f"At {endpoint} answers worker '{view.worker_id}' ({view.instance_id}), "
                f"not '{request.worker_id}' ({request.instance_id})."
            )
        return view

    async def _refuse_double(self, endpoint: str, request: RegisterRequest, key: str | None) -> None:
        """Two live workers of one id would take each other's work away for ever; and a worker that has another key
        than the one before is another worker, which may have the id only once that one is gone."""
        known = self._registry.find(request.worker_id)
        if known is None or known.record.endpoint_url == endpoint:
            return
        same = proves(key, known.record.instance_id)
        if same and known.record.instance_id == request.instance_id:
            return
        try:
            other = await self._fleet.probe(known.record.endpoint_url).health()
        except KtrdrError:
            if same or known.failures >= self._config.control.health_failures:
                return
            raise Conflict(
                f"Worker id '{request.worker_id}' belongs to a worker at {known.record.endpoint_url} that was well a "
                "moment ago, and this one has another key. If that one is gone, try again in a minute, or forget it: "
                f"ktrdr workers forget {request.worker_id}. Else give this one its own WORKER_ID."
            ) from None
        if (other.worker_id, other.instance_id) == (request.worker_id, known.record.instance_id):
            raise Conflict(
                f"Worker id '{request.worker_id}' is in use by a live worker at {known.record.endpoint_url}. "
                "Give this one its own WORKER_ID."
            )

    async def _take_outbox(self, request: RegisterRequest, key: str | None) -> list[str]:
        acknowledged = []
        for delivery in request.outbox:
            if not await self._missing_files(delivery):
                await self._operations.deliver(request.worker_id, delivery, key)
                acknowledged.append(f"{delivery.operation_id}:{delivery.attempt}")
        return acknowledged

    async def _missing_files(self, delivery: DeliverRequest) -> list[str]:
        """Delivered files that the store lacks; a result whose files nobody has must not be published. Those that are
        here are touched: nothing refers to them yet."""
        digests, checkpoint = list(delivery.artifacts.values()), delivery.checkpoint_digest

        def look() -> list[str]:
            missing = [digest for digest in digests if not self._artifacts.touch(digest)]
            if checkpoint is not None and not (
                self._artifacts.touch(checkpoint) and self._artifacts.intact(checkpoint)
            ):
                missing.append(checkpoint)
            return missing

        return await asyncio.to_thread(look)

    def _record(self, endpoint: str, request: RegisterRequest, token_id: str | None) -> WorkerRecord:
        known = self._registry.find(request.worker_id)
        return WorkerRecord(
            worker_id=request.worker_id,
            worker_type=_ALIASES.get(request.worker_type) or WorkerType(request.worker_type),
            endpoint_url=endpoint,
            instance_id=request.instance_id,
            capabilities=request.capabilities.model_dump(mode="json"),
            registered_at=self._clock.now() if known is None else known.record.registered_at,
            draining=self._drains.held(request.worker_id),
            enrolled_by=token_id,
        )

    async def _claims(self, request: RegisterRequest) -> list[str]:
        if request.current_operation_id is None or request.current_attempt is None:
            return []
        goes_on = await self._operations.vouch(
            request.worker_id,
            request.instance_id,
            request.current_operation_id,
            request.current_attempt,
            None,
        )
        return [] if goes_on else [request.current_operation_id]

    async def report(self, worker_id: str, report: ReportRequest, key: str | None = None) -> ReportResponse:
        """Take a change of state; what is delivered is durable when this returns, and the slot free.

        Raises
        ------
        NotFound
            If the worker is not registered.
        Forbidden
            If another worker than the registered one says so.
        Unavailable
            If a delivered file was not uploaded yet; the delivery is to be repeated.
        """
        worker = self._registry.find(worker_id)
        if worker is None:  # so it registers, with its outbox
            raise NotFound("worker", worker_id)  # no similar name: to seek one takes long in a large fleet
        _check_key(key, worker_id, worker.record.instance_id)
        if worker.record.instance_id == report.instance_id:
            # before the delivery, because that frees the slot: a worker that leaves must not be chosen again
            self._registry.reported(worker, report.worker_status, delivered=report.delivery is not None)
        if report.delivery is not None:
            if missing := await self._missing_files(report.delivery):
                raise Unavailable(
                    f"Artifact {missing[0]} of operation {report.delivery.operation_id} is not here: "
                    "upload it, then report again.",
                    1.0,
                )
            await self._operations.deliver(worker_id, report.delivery, key)
        stop = [] if report.checkpoint is None else await self._checkpoint(worker_id, report)
        self._operations.wake()
        return ReportResponse(
            acknowledged=report.delivery is not None or report.checkpoint is not None, stop=stop
        )

    async def _checkpoint(self, worker_id: str, report: ReportRequest) -> list[str]:
        """Record news of a checkpoint; returns the operation if its job should stop."""
        news = report.checkpoint
        assert news is not None
        if news.digest is not None and self._operations.checkpoint_files is not None:
            await self._operations.checkpoint_files.require(news.digest, news.operation_id)
        goes_on = await self._operations.checkpointed(worker_id, report.instance_id, news)
        return [] if goes_on else [news.operation_id]

    async def set_draining(self, worker_id: str, draining: bool) -> WorkerView:
        """Let a worker finish and take no more, or take work again; if the ledger does not take it, it is as before."""
        await self._drains.set(worker_id, draining)
        self._operations.wake()
        return self._registry.view(self._registry.get(worker_id))

    async def release(self, worker_id: str) -> WorkerView:
        """Have a worker give back what it runs, which another one takes up from its checkpoint; no failure counts.

        Raises
        ------
        Unavailable
            If the worker does not answer; it runs on, unless it is gone and its lease ends.
        """
        worker = self._registry.get(worker_id)
        held = worker.reserved_for
        if held is None:
            return self._registry.view(worker)
        for _ in range(_LOOKS):  # a worker that is being told to start knows nothing to give back yet
            if worker.accepted or worker.reserved_for != held:
                break
            await asyncio.sleep(_LOOK_S)
        try:
            await self._fleet.of(worker).release(*held)
        except NotFound:
            _log.info("Worker %s has nothing to give back: %s ended just now", worker_id, held[0])
        except KtrdrError as error:
            raise Unavailable(
                f"Worker {worker_id} drains, but was not told to give {held[0]} back: {error} Try again, or stop its "
                "process; if it is gone, another worker goes on when its lease ends."
            ) from None
        return self._registry.view(worker)

    async def forget(self, worker_id: str) -> None:
        """Forget a worker that runs nothing; raises Conflict if it does."""
        worker = self._registry.get(worker_id)
        if worker.reserved_for is not None and self._registry.status(worker) != "temporarily_unavailable":
            raise Conflict(
                f"Worker {worker_id} runs {worker.reserved_for[0]}. Drain it and wait, or cancel the operation."
            )
        await self._health.forget(worker_id, "removed by the user")
