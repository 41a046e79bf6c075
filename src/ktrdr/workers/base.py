"""The worker: one operation at a time, in a process of its own, for a backend that it keeps itself known to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from abc import ABC
from collections.abc import Coroutine
from datetime import datetime
from random import Random, SystemRandom
from typing import Any, ClassVar, Literal

from fastapi import FastAPI

from ktrdr.artifacts import FileArtifactStore
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import AnotherIncarnation, Conflict, InvalidInput, KtrdrError, WorkerBusy
from ktrdr.logs import Redaction, about
from ktrdr.operations.ids import new_operation_id
from ktrdr.operations.model import OperationType, WorkerType
from ktrdr.protocol.artifact_client import CachedArtifacts
from ktrdr.protocol.messages import (
    Capabilities,
    CheckpointNews,
    DeliverRequest,
    RegisterRequest,
    RegisterResponse,
    ReportRequest,
    StartJob,
)
from ktrdr.protocol.tls_renewal import connecting
from ktrdr.protocol.transports import AiohttpTransport, Transport
from ktrdr.tracing import Place, Span, Traces
from ktrdr.workers.backend_link import BackendLink, Uploader
from ktrdr.workers.cache import trim_cache
from ktrdr.workers.capabilities import detect_capabilities
from ktrdr.workers.checkpoint_post import CheckpointPost
from ktrdr.workers.credentials import Credentials
from ktrdr.workers.delivery import Courier
from ktrdr.workers.endpoint import endpoint_url, own_port
from ktrdr.workers.host import HostSettings, OperationHost, Run
from ktrdr.workers.identity import claim_identity, new_instance_id
from ktrdr.workers.launch import Launcher
from ktrdr.workers.outbox import Outbox
from ktrdr.workers.registration import Registration
from ktrdr.workers.routes import make_app
from ktrdr.workers.settings import WorkerSettings
from ktrdr.workers.slot import Entry, Slot

__all__ = ["WorkerAPIBase"]

_log = logging.getLogger(__name__)
_RELEASE_GRACE_S = 10.0
_LAST_DELIVERY_S = 6.0
_LAST_NEWS_S = 3.0
_GOODBYE_S = 1.0


class WorkerAPIBase(ABC):
    """A worker; a subclass says in class attributes what kind of work it does.

    Making one claims its identity on this machine and starts nothing. :meth:`start` registers and takes work,
    :meth:`close` gives the running job back and ends everything; the lifespan of :attr:`app` calls both.
    For one event loop.

    Parameters
    ----------
    settings
        Where the backend is, where this listens, who it is.
    capabilities
        What to tell the backend of this machine; None looks at the machine.
    job
        Import path of the job body, ``module:function``; a parameter for tests.
    transport, uploads
        Ways to the backend other than HTTP, for simulations.
    port
        The port that is really bound, where the caller knows it; else it is found out.
    traces
        Where spans of what is done for the backend go.

    Raises
    ------
    InvalidSetting
        If another process is this worker already.
    """

    worker_type: ClassVar[WorkerType]
    default_port: ClassVar[int]
    gpu_port: ClassVar[int | None] = None
    start_paths: ClassVar[tuple[str, ...]]
    preload: ClassVar[tuple[str, ...]] = ()
    metrics_key: ClassVar[Literal["epochs", "bars", "history"]] = "history"
    wants_gpu: ClassVar[bool] = False

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        capabilities: Capabilities | None = None,
        job: str = "ktrdr.jobs.run:run_job",
        transport: Transport | None = None,
        uploads: Uploader | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        port: int | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.capabilities = capabilities or Capabilities()
        self._detect = capabilities is None
        self._random = random or SystemRandom()
        self._port = port
        self._traces = traces or Traces()
        self._identity = claim_identity(settings.home, self.worker_type, settings.worker_id)
        self.worker_id, self.instance_id = self._identity.worker_id, new_instance_id(self._identity.key)
        self.started_at = self.clock.monotonic()
        self.slot = Slot()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._work: dict[Run, asyncio.Task[None]] = {}
        self._cache = FileArtifactStore(self._identity.folder / "artifacts")
        self._host_settings = HostSettings(
            api_urls=",".join(settings.api_urls),
            token=settings.credential,
            job=job,
            worker_id=self.worker_id,
            log=settings.log,
            checkpoints=settings.checkpoints,
            secrets=settings.tokens,
        )
        self._link = self._make_link(transport, uploads)
        self._registration = self._make_registration()
        self._courier = self._make_courier()
        self._post = CheckpointPost(
            self._link,
            self.worker_id,
            report=self._news,
            on_unknown=self._registration.again,
            on_answer=lambda answer, attempt: self._stop_strays(answer.stop, attempt),
        )
        self.credentials = Credentials(settings.token, settings.enrolment_token, self._registration.again)
        self._leaving: asyncio.Task[None] | None = None
        self._introduced: int | None = None  # the attempt of which the newest registration tells
        self._launcher: Launcher | None = None
        self._host: OperationHost | None = None
        self.app: FastAPI = make_app(self)

    def _make_link(self, transport: Transport | None, uploads: Uploader | None) -> BackendLink:
        settings, timeout_s = self.settings, self.settings.control.http_timeout_s
        tls = connecting(settings.tls)
        files = CachedArtifacts(
            self._cache,
            ",".join(settings.api_urls),
            settings.credential,
            timeout_s=timeout_s,
            attempts=1,
            tls=tls,
        )
        return BackendLink(
            transport or AiohttpTransport(tls=tls),
            settings.api_urls,
            token=settings.credential,
            key=self._identity.key,
            timeout_s=timeout_s,
            uploads=uploads or files,
        )

    def _make_registration(self) -> Registration:
        return Registration(
            self._link,
            request=self._introduction,
            accept=self._accepted,
            clock=self.clock,
            random=self._random,
            silence_s=self.settings.reregister_after_s,
            first_retry_s=self.settings.first_retry_s,
            longest_retry_s=self.settings.longest_retry_s,
        )

    def _make_courier(self) -> Courier:
        return Courier(
            self._link,
            Outbox(self._identity.folder / "outbox"),
            self.worker_id,
            report=self._report,
            on_unknown=self._registration.again,
            on_done=self.slot.acknowledged,
            random=self._random,
            first_retry_s=self.settings.first_retry_s,
            longest_retry_s=self.settings.longest_retry_s,
        )

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look at the machine, warm up for jobs, begin to register; returns before the backend has answered."""
        if self._detect:
            self.capabilities = await asyncio.to_thread(detect_capabilities, with_gpu=self.wants_gpu)
        alone = self.capabilities.gpu or sys.platform == "darwin"
        self._launcher = Launcher(self.preload, "single" if alone else "fork")
        self._launcher.warm()
        await asyncio.to_thread(self._cache.clear_torn)
        await asyncio.to_thread(self._trim)
        self._host = OperationHost(
            self._launcher, self._identity.folder / "scratch", self._cache, self._host_settings, self.clock
        )
        self._spawn(self._register())
        self._spawn(self._courier.run())

    async def close(self) -> None:
        """Release the job and end; within the grace and some seconds. Again or before ``start``: nothing to do."""
        await self.release()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None
        await self._link.close()
        await asyncio.to_thread(self._traces.close)
        self._identity.release()

    async def release(self) -> None:
        """Take no more work; stop the running job and give it back to the backend. Again: wait for the same."""
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave())
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        self.slot.closed = True
        await self._say_goodbye()
        if self.slot.current is not None and self._host is not None:
            self.slot.current.run.stop("released", self._release_grace_s)
            await asyncio.wait([self.slot.current.run.ended], timeout=self._release_grace_s + 3.0)
        if self._work:
            await asyncio.wait(self._work.values(), timeout=_LAST_DELIVERY_S)

    @property
    def _release_grace_s(self) -> float:
        return min(self.settings.control.cancel_grace_s, _RELEASE_GRACE_S)

    async def _say_goodbye(self) -> None:
        """Tell the backend to choose others; it finds out anyway, so nothing is repeated."""
        if self._registration.registered.is_set():
            leaving = ReportRequest(instance_id=self.instance_id, worker_status="draining")
            with contextlib.suppress(KtrdrError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._link.report(self.worker_id, leaving)

    def kill_job(self) -> None:
        """End the running job's processes at once, without ceremony."""
        if self.slot.current is not None:
            self.slot.current.run.kill()

    async def registered(self) -> None:
        """Wait until a backend has taken this worker in."""
        await self._registration.registered.wait()

    def status(self) -> Literal["idle", "busy", "draining"]:
        """What a probe is told; busy includes the moment in which a result is brought to the backend."""
        if self.slot.closed:
            return "draining"
        entry = self.slot.visible()
        return "idle" if entry is None or entry.delivery == "waiting" else "busy"

    def heard(self) -> None:
        """A probe came: the backend lives and knows this worker."""
        self._registration.heard()
        self._courier.nudge()

    # ---- work ----------------------------------------------------------------------------------------------------

    def accept(self, job: StartJob, instance_id: str | None = None) -> Run:
        """Take an operation; check and reservation are one step. The same attempt again is the same run.

        ``instance_id``: the incarnation to which the backend gave it; what another one did would count for nothing.

        Raises
        ------
        InvalidInput
            If it is another kind of work.
        WorkerBusy
            If another operation runs here.
        Conflict
            If the attempt is outdated, or (AnotherIncarnation) meant for the process before a restart.
        """
        if instance_id is not None and instance_id != self.instance_id:
            raise AnotherIncarnation(instance_id, self.instance_id)
        if job.spec.kind != self.worker_type.value:
            raise InvalidInput(
                f"This is a {self.worker_type.value} worker; it does not do '{job.spec.kind}' operations."
            )
        host = self._host
        if host is None:
            raise WorkerBusy("This worker is not ready yet.", retry_after_s=1.0)
        operation_id, fenced = job.task_id, job.task_id is not None
        if operation_id is None:
            operation_id = new_operation_id(OperationType(job.spec.kind), self.clock, self._random)
        try:
            run = self.slot.take(
                operation_id,
                job.attempt,
                lambda: host.begin(
                    operation_id, job.attempt, job.spec, fenced=fenced, checkpoints=job.checkpoints or ()
                ),
            )
        except WorkerBusy:
            self._stop_outdated(operation_id)
            raise
        current = self.slot.current
        if current is not None and current.run is run and run not in self._work:
            with about(operation_id=operation_id, worker_id=self.worker_id):
                self._work[run] = self._spawn(self._see_through(current, Place.of(job.traceparent)))
            if job.time_limit_s is not None:
                run.limit(job.time_limit_s, self.settings.control.cancel_grace_s)
        return run

    def _stop_outdated(self, operation_id: str) -> None:
        """The backend wants a newer attempt of what runs here: the one that runs no longer counts."""
        current = self.slot.current
        if current is not None and current.run.operation_id == operation_id:
            current.run.stop("cancelled", self.settings.control.cancel_grace_s)

    async def _see_through(self, entry: Entry, trace: Place | None) -> None:
        run = entry.run
        posting = self._spawn(self._post.follow(run)) if run.fenced else None
        try:
            ending = await asyncio.shield(run.ended)
            ended_at = self.clock.now()
            self._trace(trace, run, "job", run.started_at, ending)
            self.slot.leave(run, ending, ended_at)
            _log.info("Operation %s (attempt %d): %s", run.operation_id, run.attempt, ending.status)
            if run.fenced:
                entry.delivery = "sending"
                if posting is not None:
                    await asyncio.wait([posting], timeout=_LAST_NEWS_S)
                self.slot.sent(entry, acknowledged=await self._courier.deliver(ending))
                self._trace(trace, run, "deliver", ended_at, ending)
            await asyncio.to_thread(self._trim)
        finally:
            if posting is not None:
                posting.cancel()
            self._work.pop(run, None)

    def _trace(
        self, trace: Place | None, run: Run, name: str, start: datetime, ending: DeliverRequest
    ) -> None:
        """Record what took until now, below the attempt's span, where the backend told of one."""
        if trace is None or not self._traces.enabled:
            return
        told: dict[str, str | int] = {
            "operation_id": run.operation_id,
            "attempt": run.attempt,
            "worker_id": self.worker_id,
            "status": ending.status,
        }
        span = Span(
            name=name,
            place=trace.child(name),
            parent=trace,
            start=start,
            end=self.clock.now(),
            attributes=told,
            error=ending.error if name == "job" else None,
        )
        self._traces.record(span)

    def _trim(self) -> None:
        gone = trim_cache(self._cache, self.settings.cache_gb * 1e9, self._courier.awaited_files())
        if gone:
            _log.info("%d cached files were removed (KTRDR_CACHE_GB=%g)", gone, self.settings.cache_gb)

    def cancel(self, operation_id: str, attempt: int | None = None) -> Entry:
        """Ask an operation to stop; one that has ended stays as it is.

        Raises
        ------
        NotFound
            If it is not known here.
        Conflict
            If another attempt than ``attempt`` runs here.
        """
        entry = self._entry(operation_id, attempt)
        if entry.ending is None:
            entry.run.stop("cancelled", self.settings.control.cancel_grace_s)
        return entry

    def give_back(self, operation_id: str, attempt: int | None = None) -> Entry:
        """Ask an operation to stop for the sake of another worker; raises as :meth:`cancel`."""
        entry = self._entry(operation_id, attempt)
        if entry.ending is None:
            entry.run.stop("released", self._release_grace_s)
        return entry

    def _entry(self, operation_id: str, attempt: int | None) -> Entry:
        entry = self.slot.entry(operation_id)
        if attempt is not None and attempt != entry.run.attempt:
            raise Conflict(
                f"Attempt {attempt} of {operation_id} does not run here; attempt {entry.run.attempt} does or did."
            )
        return entry

    def log_size(self, entry: Entry) -> int:
        """How much the job has printed and logged, in bytes; after its end, how much of it is kept."""
        return entry.run.log.size() if entry.ending is None else len(self._kept_log(entry.ending))

    def log_piece(self, entry: Entry, offset: int, limit: int) -> tuple[int, bytes]:
        """At most ``limit`` bytes of the job's log from ``offset`` on, also after its end, and where they begin: further
        on, where the log was too long to be kept whole. No secret is in it."""
        if entry.ending is None:
            return entry.run.log.piece(offset, limit, Redaction(*self.settings.tokens))
        return offset, self._kept_log(entry.ending)[offset : offset + limit]

    def _kept_log(self, ending: DeliverRequest) -> bytes:
        digest = ending.artifacts.get("log")
        return b"" if digest is None else self._cache.read(digest)

    # ---- backend -------------------------------------------------------------------------------------------------

    async def _register(self) -> None:
        if self._port is None:
            self._port = await own_port(self.default_port if not self.settings.port else self.settings.port)
        await self._registration.run()

    async def _introduction(self) -> RegisterRequest:
        assert self._port is not None
        outbox = await self._courier.uploaded_entries()
        current = self.slot.current
        run = current.run if current is not None and current.run.fenced else None
        self._introduced = run.attempt if run else None
        return RegisterRequest(
            worker_id=self.worker_id,
            worker_type=self.worker_type.value,
            endpoint_url=endpoint_url(self.settings, self._port),
            capabilities=self.capabilities,
            instance_id=self.instance_id,
            current_operation_id=run.operation_id if run else None,
            current_attempt=run.attempt if run else None,
            outbox=outbox,
        )

    def _accepted(self, response: RegisterResponse) -> None:
        self.credentials.learn(response.credential)
        self._courier.acknowledge(response.acknowledged)
        self._stop_strays(response.stop, self._introduced)

    def _report(self, delivery: DeliverRequest) -> ReportRequest:
        return ReportRequest(instance_id=self.instance_id, worker_status=self._activity(), delivery=delivery)

    def _news(self, checkpoint: CheckpointNews) -> ReportRequest:
        return ReportRequest(
            instance_id=self.instance_id, worker_status=self._activity(), checkpoint=checkpoint
        )

    def _activity(self) -> Literal["idle", "busy", "draining"]:
        if self.slot.closed:
            return "draining"
        return "idle" if self.slot.current is None else "busy"

    def _stop_strays(self, operation_ids: list[str], attempt: int | None) -> None:
        """``attempt``: of which the backend was told. A newer one may have begun here before its answer came."""
        for operation_id in operation_ids:
            try:
                self.cancel(operation_id, attempt)
            except KtrdrError as error:
                _log.debug("Nothing to stop: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("A task of the worker failed; this is a bug", exc_info=error)
