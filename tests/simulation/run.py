"""A job as a worker sees it: it takes time, and can be left in some places."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ktrdr.operations.progress import Progress
from ktrdr.workers.runfolder import CheckpointLog
from simulation.jobfiles import JobFiles

__all__ = ["STEPS", "Run"]

STEPS = 20


@dataclass(eq=False)
class Run:
    """Satisfies what :class:`Slot` and the views ask of a run. ``elapsed`` is how long it has really worked."""

    operation_id: str
    attempt: int
    spec: Any
    started_at: datetime
    duration_s: float
    fate: str
    elapsed: Callable[[], float]
    files: JobFiles | None = None
    fenced: bool = True

    def __post_init__(self) -> None:
        self.stopping: str | None = None
        self.stop_requested = asyncio.Event()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.before_s = 0.0 if self.files is None else self.files.first / STEPS * self.duration_s

    def stop(self, reason: str, grace_s: float) -> None:
        self.stopping = self.stopping or reason
        self.stop_requested.set()

    @property
    def left_s(self) -> float:
        return max(self.duration_s - self.before_s - self.elapsed(), 0.0)

    @property
    def wait_s(self) -> float:
        """Until the end, or the next place where it can be left."""
        if self.files is None:
            return self.left_s
        there = 1.0 - self.files.next_after(self.done) / STEPS
        return max(self.left_s - there * self.duration_s, 1e-6)

    @property
    def done(self) -> int:
        return STEPS - math.ceil(self.left_s / self.duration_s * STEPS - 1e-6)

    def progress(self) -> Progress:
        return Progress(self.done, STEPS, "working")

    def checkpoints(self) -> CheckpointLog:
        assert self.files is not None
        return self.files.told
