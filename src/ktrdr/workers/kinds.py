"""The kinds of workers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ktrdr.operations.model import WorkerType
from ktrdr.protocol.messages import Capabilities
from ktrdr.workers.backtest_worker import BacktestWorker
from ktrdr.workers.base import WorkerAPIBase
from ktrdr.workers.server import run
from ktrdr.workers.settings import WorkerSettings
from ktrdr.workers.training_worker import TrainingWorker

__all__ = ["WorkerKind", "run_worker"]

WorkerKind = Literal["backtesting", "training"]
_CLASSES: dict[WorkerType, type[WorkerAPIBase]] = {
    WorkerType.BACKTESTING: BacktestWorker,
    WorkerType.TRAINING: TrainingWorker,
}


def run_worker(
    kind: WorkerKind,
    api_url: str | None = None,
    host: str | None = None,
    port: int | None = None,
    *,
    worker_id: str | None = None,
    capabilities: Capabilities | None = None,
    job: str = "ktrdr.jobs.run:run_job",
    announce: Callable[[str], None] | None = None,
) -> None:
    """Be a worker until SIGTERM or SIGINT; what is None comes from the environment or is detected.

    Parameters
    ----------
    port
        0 takes any free one; the backend is told which.
    announce
        Called with the worker's URL once it is bound.

    Raises
    ------
    InvalidSetting
        If the backend's URL is missing, the port is in use, or another setting cannot be used.
    """
    settings = WorkerSettings.from_environment(
        WorkerType(kind), api_url=api_url, host=host, port=port, worker_id=worker_id
    )
    run(_CLASSES[settings.worker_type], settings, capabilities=capabilities, job=job, announce=announce)
