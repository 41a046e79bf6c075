"""What checkpoints cost: one of a training, one of a backtest of 1,000,000 bars, and both jobs with the default settings.

Run: ``python benchmarks/bench_checkpoints.py``. CPU seconds. A checkpoint is taken, packed, stored (synced) and told, as
a job's process does it. The share is what all calls of the keeper of checkpoints take in a job that is driven as workers
drive it: the difference of two whole runs would be below their noise.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_backtest import STRATEGY, random_bars, untrained_bundle
from ktrdr.artifacts import FileArtifactStore
from ktrdr.clock import SystemClock
from ktrdr.datasets.features import FeaturePlan
from ktrdr.jobs.backtest import backtest_model
from ktrdr.jobs.checkpoint import ResumePoint
from ktrdr.jobs.environment import Job, JobResult
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.progress import Metric
from ktrdr.settings import CheckpointSettings
from ktrdr.strategies import parse_strategy
from ktrdr.strategies.document import ForwardReturnLabels, TrainingConfig
from ktrdr.timeframe import Timeframe
from ktrdr.training.fit import Samples, fit
from ktrdr.training.state import FitState
from ktrdr.workers.checkpoints import CheckpointKeeper, JobIdentity
from ktrdr.workers.child import drain
from ktrdr.workers.runfolder import RunFolder
from table import Row

BARS, ROWS, EPOCHS, INPUTS = 1_000_000, 50_000, 60, 12
EVERY_S = 30.0


class _Nowhere:
    """A bridge that lets records fall."""

    def append(self, metric: Metric) -> None:
        """Nothing."""


_NOWHERE: Any = _Nowhere()


class TimedKeeper(CheckpointKeeper):
    """Adds up the CPU seconds that are spent on checkpoints."""

    spent_s = 0.0

    def record(self, metric: Metric, bridge: ProgressBridge) -> None:
        """As the keeper does it; the record itself would be written without checkpoints too, and is not counted."""
        bridge.append(metric)
        begin = time.process_time()
        super().record(metric, _NOWHERE)
        self.spent_s += time.process_time() - begin

    def reached(self, point: ResumePoint, bridge: ProgressBridge) -> None:
        """As the keeper does it."""
        begin = time.process_time()
        super().reached(point, bridge)
        self.spent_s += time.process_time() - begin


@contextmanager
def keeping(kind: str, settings: CheckpointSettings) -> Iterator[tuple[ProgressBridge, TimedKeeper]]:
    """What a job's process has: a bridge, and a keeper of checkpoints."""
    with tempfile.TemporaryDirectory() as root:
        store = FileArtifactStore(Path(root) / "artifacts")
        keeper = TimedKeeper(
            cache=store,
            artifacts=store,
            folder=RunFolder(Path(root)),
            job=JobIdentity("op", 1, kind, "0" * 64),
            settings=settings,
            clock=SystemClock(),
        )
        with ProgressBridge.create(Path(root) / "bridge") as bridge:
            yield bridge, keeper


def training(rows: int, epochs: int) -> Callable[[], Job]:
    """Makes trainings of an MLP [64, 32] that can be left after each epoch."""
    random = np.random.default_rng(1)
    x = random.random((rows, INPUTS), dtype=np.float32)
    samples = Samples(x, (x[:, 0] > x[:, 1]).astype(np.int8))
    config = TrainingConfig(ForwardReturnLabels(), epochs=epochs, batch_size=256)
    architecture = MlpArchitecture(inputs=INPUTS, hidden_layers=(64, 32))

    def job() -> Job:
        state = FitState.start(architecture, config, 1, torch.device("cpu"))
        for _ in fit(samples, samples, architecture, replace(config), state=state):
            yield ResumePoint(len(state.history), epochs, "epochs", state.snapshot)
        return JobResult()

    return job


def backtest(bars: int, folder: Path) -> Callable[[], Job]:
    """Makes backtests, as workers run them."""
    market = {Timeframe.H1: random_bars(bars)}
    strategy = parse_strategy(STRATEGY)
    bundle = untrained_bundle(strategy, FeaturePlan.from_strategy(strategy), folder)

    def job() -> Job:
        yield from backtest_model(bundle, market, strategy=strategy)
        return JobResult()

    return job


def one(kind: str, job: Callable[[], Job]) -> tuple[float, int]:
    """CPU seconds of one checkpoint, the median over a job that writes one at every place that is due in its later half,
    and the size of the last."""
    spent, size = [], 0
    with keeping(kind, CheckpointSettings(every_s=0.0, every_epochs=1, every_bars=1)) as (bridge, keeper):
        for item in job():
            if isinstance(item, ResumePoint) and 2 * item.done > item.total:
                before, newest = keeper.spent_s, keeper.told.saved[:1]
                keeper.reached(item, bridge)
                if keeper.told.saved[:1] != newest:
                    spent.append(keeper.spent_s - before)
        size = keeper.cache.location(keeper.told.saved[0]).stat().st_size
    return statistics.median(spent), size


def share(kind: str, job: Callable[[], Job]) -> tuple[float, float]:
    """What part of a job with the default settings is spent on checkpoints, in per cent; and CPU seconds of the job."""
    with keeping(kind, CheckpointSettings()) as (bridge, keeper):
        begin = time.process_time()
        drain(job(), bridge, keeper)
        taken = time.process_time() - begin
    return 100.0 * keeper.spent_s / taken, taken


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's rows."""
    bars, samples, epochs = (5_000, 2_000, 4) if tiny else (BARS, ROWS, EPOCHS)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = {
            "training": (f"training, MLP [64, 32], {epochs} epochs", training(samples, epochs)),
            "backtesting": (f"backtest of {bars:,} bars", backtest(bars, Path(folder))),
        }
        for kind, (what, job) in jobs.items():
            drain_once(kind, job)
            cpu_s, size = one(kind, job)
            percent, whole_s = share(kind, job)
            found += [
                Row(
                    key=f"checkpoint.{kind}.one",
                    what=f"one checkpoint: {what}",
                    measured=1e3 * cpu_s,
                    unit="ms",
                    target=1e3 * EVERY_S / 100,
                    cpu_s=cpu_s,
                    note=f"{size / 1e6:,.2f} MB; one every {EVERY_S:.0f} s by default",
                ),
                Row(
                    key=f"checkpoint.{kind}.share",
                    what=f"checkpoints by default: {what}",
                    measured=percent,
                    unit="%",
                    target=1.0,
                    cpu_s=whole_s,
                    note=f"of the job's CPU time; one of less than {EVERY_S:.0f} s writes none",
                ),
            ]
    return found


def drain_once(kind: str, job: Callable[[], Job]) -> None:
    """Compile and warm up."""
    with keeping(kind, CheckpointSettings()) as (bridge, _):
        drain(job(), bridge)


def main() -> None:
    for row in rows():
        print(f"{row.what:62}{row.measured:10.2f} {row.unit:8}{row.note}")


if __name__ == "__main__":
    main()
