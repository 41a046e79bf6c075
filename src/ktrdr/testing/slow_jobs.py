"""Real jobs, slowed down at each place where they can be left, so that tests can interrupt them in the middle."""

from __future__ import annotations

import time

from ktrdr.jobs.checkpoint import ResumePoint
from ktrdr.jobs.environment import Job, JobEnvironment
from ktrdr.jobs.run import run_job
from ktrdr.protocol.specs import JobSpec

__all__ = ["PAUSE_S", "perform"]

PAUSE_S = 0.1


def perform(spec: JobSpec, env: JobEnvironment) -> Job:
    """What :func:`ktrdr.jobs.run.run_job` does, with a pause before each resume point."""
    job = run_job(spec, env)
    try:
        while True:
            try:
                item = next(job)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(item, ResumePoint):
                time.sleep(PAUSE_S)
            yield item
    finally:
        job.close()
