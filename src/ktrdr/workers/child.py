"""The job's side of a run: iterate the job's generator, publish progress, see the cancel flag, leave an outcome."""

from __future__ import annotations

import errno
import faulthandler
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ktrdr.artifacts import ArtifactStore, FileArtifactStore, sha256_of
from ktrdr.clock import SystemClock
from ktrdr.errors import KtrdrError, UnusableCheckpoint
from ktrdr.jobs.checkpoint import ResumePoint
from ktrdr.jobs.environment import Job, JobEnvironment, JobResult
from ktrdr.logs import LogSettings, configure
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.jsontext import plain_text
from ktrdr.operations.progress import Progress
from ktrdr.protocol.artifact_client import CachedArtifacts
from ktrdr.protocol.specs import JobSpec, canonical_json
from ktrdr.protocol.tls import TlsSettings
from ktrdr.protocol.tls_renewal import ClientTls, connecting
from ktrdr.settings import CheckpointSettings
from ktrdr.workers.checkpoints import CheckpointKeeper, JobIdentity
from ktrdr.workers.runfolder import DISK_EXIT, Outcome, RunFolder, Ticket

__all__ = ["drain", "jsonable", "perform", "run_folder"]

_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_log = logging.getLogger("ktrdr.job")
_ERROR_LENGTH = 8_000
_MACHINE_FAULTS = {  # a disk that is full, read-only, broken or forbidden is no fault of the job
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTDIR),
}


def run_folder(root: Path, token: str | None, lifeline: int) -> int:
    """Be the process of one job; returns its exit code: 0 whenever an outcome was left, ``DISK_EXIT`` where the disk
    did not take it.

    ``lifeline`` is the read end of a pipe that only the worker holds: when it closes, the worker is gone and this
    process group ends.
    """
    folder = RunFolder(root)
    _redirect_output(folder)
    threading.Thread(target=_end_with_worker, args=(lifeline,), name="lifeline", daemon=True).start()
    ticket = folder.ticket()
    configure(_log_settings(ticket, token), force=True)
    _log.info("Operation %s, attempt %d: started", ticket.operation_id, ticket.attempt)
    cache = FileArtifactStore(Path(ticket.cache))
    tls = connecting(TlsSettings.from_environment())
    artifacts = CachedArtifacts(
        cache, ticket.api_urls, token, attempts=8, tls=tls
    )  # outlasts a backend's restart
    with ProgressBridge.open(folder.bridge) as bridge:
        keeper = _keeper(ticket, cache, token, folder, tls)
        outcome = perform(ticket, artifacts, folder.scratch, bridge, keeper)
    # It is told to stop, never why: a cancel, a worker that stops and hands its work on, the end of its time.
    end = "stopped before its end, as it was told" if outcome.status == "cancelled" else outcome.status
    what = f"{end}; {keeper.written:,} metrics records were written here"
    _log.info("Operation %s, attempt %d: %s", ticket.operation_id, ticket.attempt, what)
    try:
        folder.finish(outcome)
    except OSError as error:
        if error.errno not in _MACHINE_FAULTS:
            raise
        _log.error("The end of the job could not be written down: %s", error)
        return DISK_EXIT
    return 0


def _keeper(
    ticket: Ticket, cache: FileArtifactStore, token: str | None, folder: RunFolder, tls: ClientTls
) -> CheckpointKeeper:
    spec = _SPEC.validate_json(ticket.spec)
    return CheckpointKeeper(
        cache=cache,
        artifacts=CachedArtifacts(
            cache, ticket.api_urls, token, attempts=3, tls=tls
        ),  # there is a way on without it
        folder=folder,
        job=JobIdentity(ticket.operation_id, ticket.attempt, spec.kind, sha256_of(canonical_json(spec))),
        settings=CheckpointSettings(
            every_s=ticket.checkpoint_s,
            every_epochs=ticket.checkpoint_epochs,
            every_bars=ticket.checkpoint_bars,
        ),
        clock=SystemClock(),
    )


def _log_settings(ticket: Ticket, token: str | None) -> LogSettings:
    """Every line of this process is about one operation; those of other threads, too."""
    named = {"operation_id": ticket.operation_id, "worker_id": ticket.worker_id}
    return LogSettings(
        level=ticket.log_level,
        format=ticket.log_format,
        secrets=(token,) if token else (),
        fields={key: value for key, value in named.items() if value},
    )


def perform(
    ticket: Ticket,
    artifacts: ArtifactStore,
    scratch: Path,
    bridge: ProgressBridge,
    keeper: CheckpointKeeper | None = None,
) -> Outcome:
    """Run the job body that the ticket names and say how it ended; no exception leaves.

    It goes on from the first of the ticket's checkpoints that serves. Without a ``keeper`` there are none.
    """
    try:
        return _from_newest(ticket, artifacts, scratch, bridge, keeper)
    except KtrdrError as error:
        _log.error("%s", error)
        return Outcome(status="failed", error=_told(str(error)))
    except MemoryError as error:
        _log.exception("Out of memory")
        return Outcome(
            status="failed", error=_told(f"The job ran out of memory: {error}"), out_of_memory=True
        )
    except (Exception, SystemExit) as error:  # the edge of the job's process
        _log.exception("The job failed")
        if isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
            told = _told(f"This worker's disk does not serve the job: {error}")
            return Outcome(
                status="child_died", error=told
            )  # tried once more, on another worker if there is one
        return Outcome(status="failed", error=_told(f"{type(error).__name__}: {error}"))


def _from_newest(
    ticket: Ticket,
    artifacts: ArtifactStore,
    scratch: Path,
    bridge: ProgressBridge,
    keeper: CheckpointKeeper | None,
) -> Outcome:
    spec, body = _SPEC.validate_json(ticket.spec), _job(ticket.job)
    if keeper is not None:
        for digest, checkpoint in keeper.usable(ticket.checkpoints):
            keeper.go_on(digest, checkpoint)
            try:
                return drain(body(spec, JobEnvironment(artifacts, scratch, checkpoint)), bridge, keeper)
            except UnusableCheckpoint as error:
                keeper.skip(digest, error)
        keeper.start_over()
    return drain(body(spec, JobEnvironment(artifacts, scratch)), bridge, keeper)


def drain(job: Job, bridge: ProgressBridge, keeper: CheckpointKeeper | None = None) -> Outcome:
    """Iterate to the end or to the first yield after the cancel flag was set; the generator is always closed.

    A job that can be left is run on to the next place where it can, for a second at most, and checkpointed there.
    """
    try:
        while not bridge.cancelled or (keeper is not None and keeper.wants_a_point()):
            item = next(job)
            if isinstance(item, Progress):
                bridge.update(item)
            elif isinstance(item, ResumePoint):
                if keeper is not None:
                    keeper.reached(item, bridge)
            elif keeper is not None:
                keeper.record(item, bridge)
            else:
                bridge.append(item)
    except StopIteration as end:
        result: JobResult = end.value
        return Outcome(status="completed", summary=jsonable(result.summary), artifacts=dict(result.artifacts))
    finally:
        job.close()
    return Outcome(status="cancelled")


def _told(error: str) -> str:
    """An error as it can be sent; the whole of it is in the log."""
    return plain_text(error)[:_ERROR_LENGTH]


def jsonable(value: Any) -> Any:
    """Plain JSON values: NumPy scalars become Python's, numbers and half characters that JSON lacks None and ``?``."""
    if isinstance(value, Mapping):
        return {plain_text(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [jsonable(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, int | bool) else plain_text(str(value))


def _job(path: str) -> Callable[[JobSpec, JobEnvironment], Job]:
    module, _, name = path.partition(":")
    job: Callable[[JobSpec, JobEnvironment], Job] = getattr(import_module(module), name)
    return job


def _redirect_output(folder: RunFolder) -> None:
    log = os.open(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)


def _end_with_worker(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns when the last write end is closed
    os.killpg(0, signal.SIGKILL)
