"""The worker for trainings: ``python -m ktrdr.workers.training_worker`` or ``uvicorn ktrdr.workers.training_worker:app``.

``app`` is made when it is asked for, from the environment; importing this module reads and starts nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ktrdr.operations.model import WorkerType
from ktrdr.workers.base import WorkerAPIBase

if TYPE_CHECKING:
    from fastapi import FastAPI

    app: FastAPI

__all__ = ["TrainingWorker"]


class TrainingWorker(WorkerAPIBase):
    """Trains models, on a GPU where torch finds one. Only its jobs' processes load torch, never its own."""

    worker_type = WorkerType.TRAINING
    default_port = 5004
    gpu_port = 5002
    start_paths = ("/training/start", "/trainings/start")
    metrics_key = "epochs"
    preload = (
        *("polars", "numba", "talib", "exchange_calendars", "torch", "ktrdr.jobs.run", "ktrdr.jobs.train"),
        "torch._dynamo",  # the first step of an optimizer would import it, a second in which no cancel is seen
    )
    wants_gpu = True


def __getattr__(name: str) -> FastAPI:
    if name != "app":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from ktrdr.workers.server import app_from_environment  # lazy: a server is asking

    made = globals()["app"] = app_from_environment(TrainingWorker)  # once: servers ask more than once
    return made


if __name__ == "__main__":
    from ktrdr.workers.server import main  # lazy: only as a program

    sys.exit(main(TrainingWorker))
