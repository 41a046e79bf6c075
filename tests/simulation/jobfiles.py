"""What a simulated job leaves on its worker's disk: checkpoints, written, told and chosen by the real keeper."""

from __future__ import annotations

from typing import Any, cast
from zlib import crc32

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.clock import Clock
from ktrdr.jobs.checkpoint import ResumePoint
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.protocol.messages import StartJob
from ktrdr.protocol.specs import canonical_json
from ktrdr.settings import CheckpointSettings
from ktrdr.snapshot import Snapshot
from ktrdr.workers.checkpoints import CheckpointKeeper, JobIdentity
from ktrdr.workers.runfolder import CheckpointLog, RunFolder
from simulation.shelf import Made, Shelf

__all__ = ["Cache", "JobFiles", "writes_checkpoints"]

_EVERY = 5  # steps of a job
_ONE_IN = 3  # operations


def writes_checkpoints(operation_id: str) -> bool:
    """Whether the jobs of this operation can be left in the middle; a share of all, because it costs time."""
    return crc32(operation_id.encode()) % _ONE_IN == 0


class Cache:
    """A worker's disk: it outlives the worker's processes."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, Made]] = {}
        self.made: Made  # of what is written next

    def put(self, content: bytes) -> str:
        digest = sha256_of(content)
        self.files[digest] = content, self.made
        return digest

    def delete(self, digest: str) -> None:
        self.files.pop(digest, None)


class _Folder:
    """Where a job tells of its checkpoints."""

    def __init__(self) -> None:
        self.told = CheckpointLog()

    def tell_checkpoints(self, told: CheckpointLog) -> None:
        self.told = CheckpointLog(list(told.saved), list(told.refused), list(told.notes))


class _Bridge:
    """What the keeper asks of the bridge."""

    cancelled = False

    def append(self, metric: Any) -> None:
        """Nobody reads metrics here."""


class JobFiles:
    """One attempt's checkpoints. ``first`` is the step at which it begins, ``used`` the checkpoint that it took."""

    def __init__(self, job: StartJob, cache: Cache, shelf: Shelf, clock: Clock, total: int) -> None:
        assert job.task_id is not None
        self._name, self._attempt, self._total, self._cache = job.task_id, job.attempt, total, cache
        self._folder, self._bridge = _Folder(), _Bridge()
        identity = JobIdentity(job.task_id, job.attempt, job.spec.kind, sha256_of(canonical_json(job.spec)))
        self._keeper = CheckpointKeeper(
            cast("FileArtifactStore", cache),
            shelf.as_store,
            cast("RunFolder", self._folder),
            identity,
            CheckpointSettings(every_s=0.0, every_epochs=_EVERY),
            clock,
        )
        self.first, self.used = 0, ""
        for digest, checkpoint in self._keeper.usable(tuple(job.checkpoints or ())):
            self._keeper.go_on(digest, checkpoint)
            self.first, self.used = checkpoint.done, digest
            break
        else:
            self._keeper.start_over()

    @property
    def told(self) -> CheckpointLog:
        """What the job has told, in a copy."""
        told = self._folder.told
        return CheckpointLog(list(told.saved), list(told.refused), list(told.notes))

    @property
    def refused(self) -> list[str]:
        """Those of the given that were of no use."""
        return list(self._folder.told.refused)

    def next_after(self, done: int) -> int:
        """The step after which the next one is due."""
        return (done // _EVERY + 1) * _EVERY

    def reached(self, done: int, *, stopping: bool) -> None:
        """The job can be left here."""
        if 0 < done < self._total:
            self._bridge.cancelled = stopping
            self._cache.made = Made(self._name, self._attempt, done)
            point = ResumePoint(done, self._total, "epochs", lambda: Snapshot({"done": done}))
            self._keeper.reached(point, cast("ProgressBridge", self._bridge))

    def ended(self, status: str) -> str | None:
        """The newest one, which goes with the delivery; the files of a job that is complete go."""
        saved = self._folder.told.saved
        if status != "completed":
            return saved[0] if saved else None
        for digest in saved:
            self._cache.delete(digest)
        return None
