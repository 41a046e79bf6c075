"""Which port a worker takes where nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.operations.model import WorkerType
from ktrdr.protocol.messages import Capabilities
from ktrdr.workers.backtest_worker import BacktestWorker
from ktrdr.workers.base import WorkerAPIBase
from ktrdr.workers.server import default_port
from ktrdr.workers.settings import WorkerSettings
from ktrdr.workers.training_worker import TrainingWorker

GPU = Capabilities(gpu=True, gpu_type="CUDA", gpu_count=1)


@pytest.mark.parametrize(
    ("cls", "capabilities", "told", "port"),
    [
        (BacktestWorker, Capabilities(), None, 5003),
        (BacktestWorker, GPU, None, 5003),
        (TrainingWorker, Capabilities(), None, 5004),
        (TrainingWorker, GPU, None, 5002),
        (TrainingWorker, GPU, 0, 0),
        (BacktestWorker, Capabilities(), 6000, 6000),
    ],
)
def test_ports(cls: type[WorkerAPIBase], capabilities: Capabilities, told: int | None, port: int) -> None:
    settings = WorkerSettings(
        worker_type=WorkerType.TRAINING, api_urls=("http://127.0.0.1:1",), home=Path("unused"), port=told
    )
    assert default_port(settings, cls, capabilities) == port
