"""Runs one job in a process of its own, from its ticket to the delivery that says how it ended."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import ValidationError

from ktrdr.artifacts import FileArtifactStore
from ktrdr.clock import Clock
from ktrdr.errors import InvalidInput, KtrdrError
from ktrdr.logs import LogSettings, Redaction, about
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.jsontext import plain_text
from ktrdr.operations.progress import Progress, Scalar
from ktrdr.protocol.messages import DeliverRequest, ProgressView
from ktrdr.protocol.specs import JobSpec
from ktrdr.settings import CheckpointSettings
from ktrdr.workers.cgroup import memory_limit, oom_kills
from ktrdr.workers.joblog import JobLog
from ktrdr.workers.launch import Child, Exit, Launcher
from ktrdr.workers.runfolder import DISK_EXIT, CheckpointLog, Outcome, RunFolder, Ticket

__all__ = ["HostSettings", "OperationHost", "Run", "StopReason", "describe_death"]

StopReason = Literal["cancelled", "released", "overdue"]
_log = logging.getLogger(__name__)
_LOG_LOOK_S = 0.25
_DELIVERY_LIMIT = 128 << 10
_ERROR_LENGTH = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What every run of a worker has in common; ``job`` is the import path of the job body, ``module:function``.

    ``secrets`` must not be seen in what jobs print.
    """

    api_urls: str
    token: str | None = None
    job: str = "ktrdr.jobs.run:run_job"
    worker_id: str = ""
    log: LogSettings = field(default_factory=LogSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Run:
    """One attempt at one operation, running now. For one event loop.

    ``ended`` resolves once its process group is gone and its files are artifacts; it never raises.
    """

    ended: asyncio.Task[DeliverRequest]

    def __init__(
        self,
        operation_id: str,
        attempt: int,
        spec: JobSpec,
        *,
        fenced: bool,
        folder: RunFolder,
        now: datetime,
        checkpoints: Sequence[str] = (),
    ) -> None:
        self.operation_id, self.attempt, self.spec, self.fenced = operation_id, attempt, spec, fenced
        self.resumes_from = tuple(checkpoints)
        self.folder = folder
        self.log = JobLog(folder.log)
        self.started_at = now
        self.stopping: StopReason | None = None
        self._bridge: ProgressBridge | None = None
        self._last: Progress | None = None
        self._records: list[dict[str, Scalar]] = []
        self._told: CheckpointLog | None = None
        self._child: Child | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._limit_timer: asyncio.TimerHandle | None = None
        self.time_limit_s: float | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, once it is born."""
        return None if self._child is None else self._child.pid

    def progress(self) -> Progress | None:
        """The newest snapshot, or None before the first."""
        return self._last if self._bridge is None else self._bridge.read()

    def metrics(self, cursor: int) -> tuple[list[dict[str, Scalar]], int]:
        """Metrics records from number ``cursor`` on, and the next cursor."""
        if self._bridge is None:
            records = self._records[cursor:]
            return records, max(cursor, len(self._records))
        found, following = self._bridge.metrics(cursor)
        return [dict(record) for record in found], following

    def checkpoints(self) -> CheckpointLog:
        """What the job has told of checkpoints, also after its end."""
        return self.folder.checkpoints() if self._told is None else self._told

    def keep_checkpoints(self) -> CheckpointLog:
        """The same, kept from now on: the run folder goes."""
        self._told = self.folder.checkpoints()
        return self._told

    def stop(self, reason: StopReason, grace_s: float) -> None:
        """Raise the flag; after the grace the process group is killed. Asking again keeps the first reason."""
        if self.stopping is not None:
            return
        self.stopping = reason
        if self._bridge is not None:
            self._bridge.request_cancel()
        self._kill_timer = asyncio.get_running_loop().call_later(grace_s, self.kill)

    def limit(self, time_limit_s: float, grace_s: float) -> None:
        """Stop it when it has run so long; it has failed then."""
        self.time_limit_s = time_limit_s
        loop = asyncio.get_running_loop()
        self._limit_timer = loop.call_later(time_limit_s, self.stop, "overdue", grace_s)

    def kill(self) -> None:
        """End the process group now."""
        if self._child is not None:
            self._child.kill()

    async def live(self, bridge: ProgressBridge, birth: Callable[[], Awaitable[Child]]) -> Exit:
        """Wait for the child from its birth to its end; nothing of its group is left afterwards."""
        self._bridge = bridge
        if self.stopping is not None:
            bridge.request_cancel()
        watch = asyncio.get_running_loop().create_task(self._watch_log())
        try:
            self._child = await birth()
            return await asyncio.shield(self._child.exited)
        finally:
            watch.cancel()
            if self._child is not None:
                self._child.kill()
                self._child.release()
            for timer in (self._kill_timer, self._limit_timer):
                if timer is not None:
                    timer.cancel()
            self._freeze(bridge)

    async def _watch_log(self) -> None:
        """A job that prints without end must not fill the disk."""
        while True:
            await asyncio.sleep(_LOG_LOOK_S)
            try:
                gone = await asyncio.to_thread(self.log.relieve)
            except OSError as error:
                _log.warning("The log of %s cannot be shortened: %s", self.operation_id, error)
                return
            if gone:
                _log.debug("%d bytes were cut out of the log of %s", gone, self.operation_id)

    def _freeze(self, bridge: ProgressBridge) -> None:
        """Keep what the bridge holds and let its file go."""
        self._last, cursor = bridge.read(), 0
        while found := bridge.metrics(cursor)[0]:
            self._records += [dict(record) for record in found]
            cursor += len(found)
        self._bridge = None
        bridge.close()


class OperationHost:
    """Starts runs; one worker has one.

    Parameters
    ----------
    launcher
        Where children come from.
    scratch
        Folder for run folders; what an earlier process left in it is removed.
    cache
        The worker's artifacts: what jobs fetched and made.
    """

    def __init__(
        self,
        launcher: Launcher,
        scratch: Path,
        cache: FileArtifactStore,
        settings: HostSettings,
        clock: Clock,
    ) -> None:
        self._launcher, self._scratch, self._cache = launcher, scratch, cache
        self._settings, self._clock = settings, clock
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True, mode=0o700)

    def begin(
        self,
        operation_id: str,
        attempt: int,
        spec: JobSpec,
        *,
        fenced: bool = True,
        checkpoints: Sequence[str] = (),
    ) -> Run:
        """Start an attempt and return at once; whatever happens is told by ``Run.ended``.

        ``checkpoints`` are digests from which it goes on, the best first.
        """
        folder = RunFolder(self._scratch / f"{operation_id}.{attempt}")
        now = self._clock.now()
        run = Run(operation_id, attempt, spec, fenced=fenced, folder=folder, now=now, checkpoints=checkpoints)
        with about(operation_id=operation_id):
            run.ended = asyncio.get_running_loop().create_task(self._conduct(run), name=f"run {operation_id}")
        return run

    async def _conduct(self, run: Run) -> DeliverRequest:
        try:
            return await self._run_and_deliver(run)
        except (
            Exception
        ) as error:  # the edge of a run: however it went, its end must be told and the slot be free
            _log.exception("Operation %s: its end could not be put together", run.operation_id)
            what = plain_text(f"{type(error).__name__}: {error}")[:_ERROR_LENGTH]
            told = f"The worker could not put the end of the job together: {what}"
            return _sendable(run, status="child_died", error=told)

    async def _run_and_deliver(self, run: Run) -> DeliverRequest:
        kills_before = oom_kills()
        exited: Exit | None = None
        error: str | None = None
        try:
            bridge = await asyncio.to_thread(self._prepare, run)
            exited = await run.live(
                bridge, lambda: self._launcher.launch(run.folder.root, self._settings.token)
            )
        except (KtrdrError, OSError) as failure:
            error = f"The job could not be started: {failure}"
            _log.error("Operation %s: %s", run.operation_id, error)
        return await asyncio.to_thread(self._deliver, run, exited, error, oom_kills() > kills_before)

    def _prepare(self, run: Run) -> ProgressBridge:
        shutil.rmtree(run.folder.root, ignore_errors=True)
        settings = self._settings
        run.folder.prepare(
            Ticket(
                operation_id=run.operation_id,
                attempt=run.attempt,
                job=settings.job,
                spec=run.spec.model_dump_json(),
                cache=str(self._cache.root),
                api_urls=settings.api_urls,
                worker_id=settings.worker_id,
                log_level=settings.log.level,
                log_format=settings.log.format,
                checkpoints=run.resumes_from,
                checkpoint_s=settings.checkpoints.every_s,
                checkpoint_epochs=settings.checkpoints.every_epochs,
                checkpoint_bars=settings.checkpoints.every_bars,
            )
        )
        return ProgressBridge.create(run.folder.bridge)

    def _deliver(self, run: Run, exited: Exit | None, error: str | None, oom: bool) -> DeliverRequest:
        outcome = run.folder.outcome()
        artifacts = dict(outcome.artifacts) if outcome else {}
        artifacts |= self._records(run)
        saved = run.keep_checkpoints().saved
        shutil.rmtree(run.folder.root, ignore_errors=True)
        ending = _ending(run, outcome, exited, error, oom)
        if lost := [name for name, digest in artifacts.items() if not self._stored(digest)]:
            ending = {
                "status": "failed",
                "error": f"The job named files that it did not store: {', '.join(lost)}.",
            }
            artifacts = {name: digest for name, digest in artifacts.items() if name not in lost}
        if ending["status"] == "completed":
            for digest in saved:
                self._cache.delete(digest)
        elif saved and self._stored(saved[0]):
            ending["checkpoint_digest"] = saved[0]
        last = run.progress()
        progress = None if last is None else ProgressView.of(last)
        return _sendable(run, artifacts=artifacts, progress=progress, **ending)

    def _records(self, run: Run) -> dict[str, str]:
        """Log and metrics as artifacts; a disk that does not take them must not cost the result."""
        kept: dict[str, str] = {}
        try:
            if log := run.log.whole(Redaction(*self._settings.secrets)):
                kept["log"] = self._cache.put(log)
            if records := run.metrics(0)[0]:
                lines = "".join(json.dumps(record) + "\n" for record in records)
                kept["metrics"] = self._cache.put(lines.encode())
        except OSError as error:
            _log.warning("Operation %s: log or metrics could not be kept: %s", run.operation_id, error)
        return kept

    def _stored(self, digest: str) -> bool:
        try:
            return self._cache.has(digest)
        except InvalidInput:  # no digest at all
            return False


def _sendable(run: Run, **fields: Any) -> DeliverRequest:
    """The delivery; a result that has no form on the wire is a failure that says so."""
    try:
        delivery = DeliverRequest(operation_id=run.operation_id, attempt=run.attempt, **fields)
        size = len(delivery.model_dump_json())
        if size <= _DELIVERY_LIMIT:
            return delivery
        fault = f"its summary and progress have {size:,} bytes, {_DELIVERY_LIMIT:,} are allowed"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        fault = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (ValueError, TypeError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error}"
    _log.error("Operation %s: its result cannot be sent: %s", run.operation_id, fault)
    return DeliverRequest(
        operation_id=run.operation_id,
        attempt=run.attempt,
        status="failed",
        error=plain_text(f"The job's result cannot be sent: {fault}")[:_ERROR_LENGTH],
    )


def _ending(
    run: Run, outcome: Outcome | None, exited: Exit | None, error: str | None, oom: bool
) -> dict[str, object]:
    """Status and reason: a cancel wins over everything, a release or the end of its time over everything but an end
    that was reached."""
    stopping = run.stopping
    if stopping == "cancelled":
        return {"status": "cancelled"}
    if outcome is not None and outcome.status != "cancelled":
        return {
            "status": outcome.status,
            "summary": outcome.summary,
            "error": outcome.error,
            "out_of_memory": outcome.out_of_memory,
        }
    if stopping == "released":
        return {"status": "released"}
    if stopping == "overdue":
        told = f"It ran longer than its time limit of {run.time_limit_s:g} s and was stopped. "
        advice = "Submit it with more (time_limit_s, --time-limit), or resume it: it has that time again."
        return {"status": "failed", "error": told + advice}
    if exited is None:
        return {"status": "child_died", "error": error}
    killed_for_memory, detail = describe_death(exited, oom_killed=oom)
    return {"status": "child_died", "error": detail, "out_of_memory": killed_for_memory}


def describe_death(how: Exit, *, oom_killed: bool, limit: int | None = None) -> tuple[bool, str]:
    """Whether a child died for want of memory, and a sentence on its death with signal, peak and limit.

    Sure where the container's kill counter rose (``oom_killed``); a SIGKILL with a peak above 80 % of the limit
    counts as well.
    """
    limit = limit or memory_limit() or psutil.virtual_memory().total
    peak = f"peak memory {how.peak_rss / 2**30:.2f} GiB" if how.peak_rss else "peak memory unknown"
    if how.killed_by is None and how.code == DISK_EXIT:
        return False, (
            f"This worker's disk did not take the end of the job ({peak}). Make room in its KTRDR_HOME, or repair the "
            "disk."
        )
    if how.killed_by is None:
        return False, f"The job's process ended without a result, exit code {how.code}; {peak}."
    name = signal.Signals(how.killed_by).name
    if how.killed_by == signal.SIGKILL and (oom_killed or how.peak_rss > 0.8 * limit):
        return True, (
            f"The job's process was killed for want of memory ({name}; {peak}, limit {limit / 2**30:.2f} GiB). "
            "Use fewer bars or timeframes, or a worker with more memory."
        )
    return False, f"The job's process was killed by {name}; {peak}."
