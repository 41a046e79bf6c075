"""What a job is given and what it gives back; the same in a worker's child process and in a notebook."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ktrdr.artifacts import ArtifactStore
from ktrdr.jobs.checkpoint import Checkpoint, ResumePoint
from ktrdr.models.bundle import JsonValue
from ktrdr.operations.progress import Metric, Progress

__all__ = ["Job", "JobEnvironment", "JobResult"]


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """``artifacts`` is where the job reads its data and leaves its results; ``scratch`` a folder of its own.

    ``resume`` is where to go on, or None to begin. A job that cannot go on from it raises UnusableCheckpoint before it
    yields a metric.
    """

    artifacts: ArtifactStore
    scratch: Path
    resume: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """``summary``: the few figures that lists show. ``artifacts``: names (``result``, ``trades``, ``model``) to digests."""

    summary: Mapping[str, JsonValue] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)


Job = Generator[Progress | Metric | ResumePoint, None, JobResult]
"""A running job. It may be closed at any yield; it leaves nothing half-written, since artifacts are stored whole."""
