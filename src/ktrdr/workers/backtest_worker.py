"""The worker for backtests: ``python -m ktrdr.workers.backtest_worker`` or ``uvicorn ktrdr.workers.backtest_worker:app``.

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

__all__ = ["BacktestWorker"]


class BacktestWorker(WorkerAPIBase):
    """Backtests trained models. Its processes never load torch."""

    worker_type = WorkerType.BACKTESTING
    default_port = 5003
    start_paths = ("/backtests/start",)
    metrics_key = "bars"
    preload = (
        *("polars", "numba", "onnxruntime", "talib", "exchange_calendars"),
        *("ktrdr.jobs.run", "ktrdr.jobs.backtest"),
    )


def __getattr__(name: str) -> FastAPI:
    if name != "app":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from ktrdr.workers.server import app_from_environment  # lazy: a server is asking

    made = globals()["app"] = app_from_environment(BacktestWorker)  # once: servers ask more than once
    return made


if __name__ == "__main__":
    from ktrdr.workers.server import main  # lazy: only as a program

    sys.exit(main(BacktestWorker))
