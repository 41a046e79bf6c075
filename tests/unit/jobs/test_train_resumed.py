"""A training job that goes on from a checkpoint stores the same bundle, having run the remaining epochs only."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.errors import UnusableCheckpoint
from ktrdr.jobs.checkpoint import FORMATS, Checkpoint, ResumePoint
from ktrdr.jobs.environment import JobEnvironment
from ktrdr.jobs.run import run_job
from ktrdr.market.store import MarketStore
from ktrdr.operations.progress import Metric, Progress
from ktrdr.protocol.specs import DatasetRef, TrainingSpec
from ktrdr.snapshot import Snapshot, pack, unpack
from ktrdr.strategies.document import Strategy

Drained = Callable[[Generator[Any, None, Any]], tuple[list[Any], Any]]


@pytest.fixture
def spec(
    strategy: Strategy, bars_of: Callable[..., Bars], store: FileArtifactStore, tmp_path: Path
) -> TrainingSpec:
    manifest = MarketStore(tmp_path / "market", store).save(bars_of()).artifact
    data = [DatasetRef(symbol="AAA", timeframe="1d", manifest=manifest)]
    return TrainingSpec(
        strategy_name=strategy.name, strategy=strategy.text, symbols=["AAA"], timeframes=["1d"], datasets=data, device="cpu"
    )  # fmt: skip


def checkpoint_of(point: ResumePoint, metrics: list[Any]) -> Checkpoint:
    return Checkpoint(
        format=FORMATS["training"],
        spec_digest="",
        operation_id="op",
        attempt=1,
        done=point.done,
        total=point.total,
        unit=point.unit,
        metrics=tuple(metrics),
        snapshot=unpack(pack(point.capture())),
    )


def test_from_every_epoch_on(
    spec: TrainingSpec, store: FileArtifactStore, tmp_path: Path, drained: Drained
) -> None:
    whole, metrics, stops = run_job(spec, JobEnvironment(store, tmp_path)), [], []
    while True:
        try:
            event = next(whole)
        except StopIteration as end:
            result = end.value
            break
        if isinstance(event, Metric):
            metrics.append(event.values)
        elif isinstance(event, ResumePoint):
            stops.append(checkpoint_of(event, metrics))
    assert [stop.done for stop in stops] == [1, 2, 3, 4]
    for stop in stops:
        elsewhere = FileArtifactStore(tmp_path / f"worker {stop.done}")
        for digest in [
            spec.datasets[0].manifest,
            *(d for d in store.digests() if d not in result.artifacts.values()),
        ]:
            elsewhere.put(store.read(digest))
        events, again = drained(run_job(spec, JobEnvironment(elsewhere, tmp_path, stop)))
        assert again == result
        assert [e.values for e in events if isinstance(e, Metric)] == metrics[stop.done :]
        shown = [e.items_done for e in events if isinstance(e, Progress)]
        assert shown[0] == stop.done
        assert shown == sorted(shown)


def test_the_state_of_another_network_is_refused_before_anything_is_told(
    spec: TrainingSpec, store: FileArtifactStore, tmp_path: Path
) -> None:
    foreign = checkpoint_of(ResumePoint(1, 4, "epochs", lambda: Snapshot({}, {})), [])
    seen = []
    with pytest.raises(UnusableCheckpoint, match="does not fit"):  # noqa: PT012 (the events before it count)
        for event in run_job(spec, JobEnvironment(store, tmp_path, foreign)):
            seen.append(event)  # noqa: PERF402
    assert all(isinstance(event, Progress) for event in seen)
