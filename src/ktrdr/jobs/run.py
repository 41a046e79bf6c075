"""From a job specification to a running job."""

from __future__ import annotations

from typing import assert_never

from ktrdr.jobs.environment import Job, JobEnvironment
from ktrdr.protocol.specs import BacktestSpec, JobSpec, TrainingSpec

__all__ = ["run_job"]


def run_job(spec: JobSpec, env: JobEnvironment) -> Job:
    """The generator that does the work of ``spec``: yields Progress and Metric, returns a JobResult.

    Each kind's code is imported here and not above: a backtest never loads torch.

    Raises
    ------
    MissingExtra
        If the kind needs an optional dependency that is not installed; raised at once, before the first yield.
    """
    match spec:
        case BacktestSpec():
            from ktrdr.jobs.backtest import backtest_job

            return backtest_job(spec, env)
        case TrainingSpec():
            from ktrdr.jobs.train import train_job

            return train_job(spec, env)
        case _:
            assert_never(spec)
