"""The job's side of checkpoints: when one is due, where it is kept, and which one to go on from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from ktrdr.artifacts import ArtifactStore, FileArtifactStore
from ktrdr.clock import Clock
from ktrdr.errors import CorruptArtifact, KtrdrError, NotFound, UnusableCheckpoint
from ktrdr.jobs.checkpoint import FORMATS, Checkpoint, ResumePoint
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.progress import Metric, Scalar
from ktrdr.settings import CheckpointSettings
from ktrdr.workers.runfolder import CheckpointLog, RunFolder

__all__ = ["CheckpointKeeper", "JobIdentity"]

_log = logging.getLogger("ktrdr.job")
_KEPT = 2
_LONGEST_SHARE = 100  # a checkpoint by time waits until a hundred times its own cost has been worked
_LAST_POINT_S = 1.0  # how long a job that is to stop is run on towards its next resume point


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """Whose checkpoints they are."""

    operation_id: str
    attempt: int
    kind: str
    spec_digest: str


@dataclass(slots=True)
class CheckpointKeeper:
    """Decides when a job is checkpointed, writes it down, and finds the one to go on from.

    Laws
    ----
    - A digest is told (in the run folder) only after its file is durable in the cache.
    - The two newest files of this attempt stay; an older one goes only after a newer one is durable.
    - A checkpoint that cannot be written, or read, never ends the job.

    ``written`` counts the metrics records of this attempt, without those that it took over.
    """

    cache: FileArtifactStore
    artifacts: ArtifactStore
    folder: RunFolder
    job: JobIdentity
    settings: CheckpointSettings
    clock: Clock
    told: CheckpointLog = field(default_factory=CheckpointLog)
    written: int = 0
    _metrics: list[dict[str, Scalar]] = field(default_factory=list)
    _replay: tuple[Metric, ...] = ()
    _due_at: float | None = None
    _saved_done: int = 0
    _stop_by: float | None = None
    _stopped: bool = False

    # --- going on -------------------------------------------------------------------------------------------------

    def usable(self, digests: tuple[str, ...]) -> Iterator[tuple[str, Checkpoint]]:
        """Those of ``digests`` from which this job can go on, in their order; each other one is reported."""
        for digest in digests:
            try:
                checkpoint = Checkpoint.read(
                    self.artifacts, digest, kind=self.job.kind, spec_digest=self.job.spec_digest
                )
            except KtrdrError as error:
                gone = isinstance(error, UnusableCheckpoint | CorruptArtifact | NotFound)
                self.skip(digest, error, for_good=gone)
                continue
            yield digest, checkpoint

    def skip(self, digest: str, error: KtrdrError, *, for_good: bool = True) -> None:
        """Report a checkpoint that is not used; ``for_good``: no other attempt should try it either."""
        _log.warning("Checkpoint %s is skipped: %s", digest[:12], error)
        if for_good:
            self.told.refused.append(digest)
        self._tell(f"checkpoint {digest[:12]} skipped: {error}")

    def go_on(self, digest: str, checkpoint: Checkpoint) -> None:
        """The job begins at this checkpoint: its metrics go before those to come."""
        self._replay = tuple(Metric(record) for record in checkpoint.metrics)
        self._metrics = [dict(record) for record in checkpoint.metrics]
        self._saved_done = checkpoint.done
        where = f"goes on after {checkpoint.done:,} of {checkpoint.total:,} {checkpoint.unit} (checkpoint {digest[:12]})"
        _log.info("Operation %s, attempt %d: %s", self.job.operation_id, self.job.attempt, where)
        self._tell(where)

    def start_over(self) -> None:
        """No checkpoint serves: the job begins at its start."""
        self._replay, self._metrics, self._saved_done = (), [], 0

    # --- along the way ----------------------------------------------------------------------------------------------

    def record(self, metric: Metric, bridge: ProgressBridge) -> None:
        """A metrics record of the job: into the log, after those of the checkpoint that it went on from."""
        self._before(bridge)
        bridge.append(metric)
        self._metrics.append(dict(metric.values))
        self.written += 1

    def reached(self, point: ResumePoint, bridge: ProgressBridge) -> None:
        """The job can be left here; write it down if that is due, or if it is to stop."""
        self._before(bridge)
        if self._due_at is None:
            self._due_at = self.clock.monotonic() + self.settings.every_s
        if bridge.cancelled:
            self._stopped = True
            self._save(point)
        elif self._is_due(point):
            self._save(point)

    def wants_a_point(self) -> bool:
        """The job was asked to stop: whether to run it on towards a place where it can be left."""
        if self._due_at is None or self._stopped:
            return False
        if self._stop_by is None:
            self._stop_by = self.clock.monotonic() + _LAST_POINT_S
        return self.clock.monotonic() < self._stop_by

    def _before(self, bridge: ProgressBridge) -> None:
        for metric in self._replay:
            bridge.append(metric)
        self._replay = ()

    def _is_due(self, point: ResumePoint) -> bool:
        settings = self.settings
        every = settings.every_epochs if point.unit == "epochs" else settings.every_bars
        if every and point.done - self._saved_done >= every:
            return True
        assert self._due_at is not None
        return settings.every_s > 0 and self.clock.monotonic() >= self._due_at

    def _save(self, point: ResumePoint) -> None:
        started = self.clock.monotonic()
        try:
            digest = self.cache.put(self._checkpoint(point).to_bytes())
        except OSError as error:
            _log.warning("A checkpoint could not be written: %s", error)
        else:
            self._keep(digest)
            _log.info("Checkpoint %s after %s of %s %s", digest[:12], point.done, point.total, point.unit)
        now = self.clock.monotonic()
        self._saved_done = point.done
        self._due_at = now + max(self.settings.every_s, _LONGEST_SHARE * (now - started))

    def _checkpoint(self, point: ResumePoint) -> Checkpoint:
        job = self.job
        return Checkpoint(
            format=FORMATS[job.kind],
            spec_digest=job.spec_digest,
            operation_id=job.operation_id,
            attempt=job.attempt,
            done=point.done,
            total=point.total,
            unit=point.unit,
            metrics=tuple(self._metrics),
            snapshot=point.capture(),
        )

    def _keep(self, digest: str) -> None:
        """Tell the newest, and only then let the third go."""
        saved = [digest, *(known for known in self.told.saved if known != digest)]
        self.told.saved = saved[:_KEPT]
        self._publish()
        for gone in saved[_KEPT:]:
            self.cache.delete(gone)

    def _tell(self, note: str) -> None:
        self.told.notes.append(note)
        self._publish()

    def _publish(self) -> None:
        try:
            self.folder.tell_checkpoints(self.told)
        except OSError as error:
            _log.warning("News of a checkpoint could not be left: %s", error)
