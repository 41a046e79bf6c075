"""The training job: events, bundle, result document, determinism."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.datasets.features import compute_features
from ktrdr.jobs.environment import JobEnvironment
from ktrdr.jobs.learning_set import build_learning_set
from ktrdr.jobs.run import run_job
from ktrdr.jobs.train import train_model
from ktrdr.market.manifest import write_dataset
from ktrdr.models.bundle import load_bundle
from ktrdr.models.inference import Classifier
from ktrdr.operations.progress import Metric, Progress
from ktrdr.protocol.specs import DatasetRef, TrainingSpec
from ktrdr.strategies import Strategy, with_overrides
from ktrdr.timeframe import Timeframe

Drained = Callable[[Any], tuple[list[Any], Any]]
D1 = Timeframe.D1


class HastyClock:
    """Every look at it makes a sign of life due."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> datetime:
        return datetime(2020, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        self.time += 1.0
        return self.time


@pytest.fixture
def spec(strategy: Strategy, bars_of: Callable[..., Bars], store: FileArtifactStore) -> TrainingSpec:
    manifest = write_dataset(store, bars_of(), source="made up", licence="none")
    return TrainingSpec(
        strategy_name="small",
        strategy=strategy.text,
        symbols=["AAA"],
        timeframes=["1d"],
        datasets=[DatasetRef(symbol="AAA", timeframe="1d", manifest=manifest.artifact)],
        device="cpu",
    )


def test_the_job_gives_a_bundle_and_a_result(
    spec: TrainingSpec, store: FileArtifactStore, tmp_path: Path, drained: Drained
) -> None:
    _, result = drained(run_job(spec, JobEnvironment(store, tmp_path)))
    assert set(result.artifacts) == {"model.onnx", "weights.safetensors", "model", "result"}
    document = json.loads(store.read(result.artifacts["result"]))
    assert document["kind"] == "training"
    assert document["model_digest"] == result.artifacts["model"] == result.summary["model_digest"]
    assert len(document["history"]) == 4
    assert document["metrics"]["rows"]["bars"] == 600
    bundle = load_bundle(store, result.artifacts["model"])
    assert bundle.manifest.strategy == spec.strategy
    assert bundle.manifest.training.datasets[0].rows == 600
    assert bundle.manifest.training.datasets[0].start == "2000-02-13T00:00:00+00:00"
    assert math.isfinite(result.summary["val_loss"])
    assert 0 <= result.summary["test_accuracy"] <= 1


def test_progress_counts_epochs_and_metrics_are_one_per_epoch(
    spec: TrainingSpec, store: FileArtifactStore, tmp_path: Path, drained: Drained
) -> None:
    events, _ = drained(run_job(spec, JobEnvironment(store, tmp_path)))
    metrics = [event.values for event in events if isinstance(event, Metric)]
    assert [m["epoch"] for m in metrics] == [1, 2, 3, 4]
    assert set(metrics[0]) == {
        *("epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate", "improved")
    }
    progress = [event for event in events if isinstance(event, Progress)]
    assert [p.items_done for p in progress] == sorted(p.items_done for p in progress)
    assert progress[-1].items_done == progress[-1].items_total == 4
    assert set(progress[-1].context) == {"epoch", "total_epochs", "train_loss", "val_loss"}


def test_batches_are_reported_when_the_clock_asks_for_it(
    strategy: Strategy, bars_of: Callable[..., Bars], store: FileArtifactStore, drained: Drained
) -> None:
    events, _ = drained(
        train_model(strategy, {"AAA": {D1: bars_of()}}, store, clock=HastyClock(), device="cpu")
    )
    lines = [event for event in events if isinstance(event, Progress) and "batch" in event.message]
    assert lines[0].message == "epoch 1 of 4: batch 1 of 6"
    assert lines[0].context["val_loss"] is None
    assert lines[-1].context["val_loss"] is not None
    assert lines[-1].items_done == 3


def test_the_same_inputs_give_the_same_digest_and_another_seed_another(
    strategy: Strategy, bars_of: Callable[..., Bars], tmp_path: Path, drained: Drained
) -> None:
    market = {"AAA": {D1: bars_of()}}

    def digest(of: Strategy, name: str) -> str:
        return drained(train_model(of, market, FileArtifactStore(tmp_path / name), device="cpu"))[
            1
        ].bundle.digest

    assert digest(strategy, "a") == digest(strategy, "b")
    assert digest(with_overrides(strategy, seed=4), "c") != digest(strategy, "a")


def test_overrides_of_the_specification_reach_the_bundle(
    spec: TrainingSpec, store: FileArtifactStore, tmp_path: Path, drained: Drained
) -> None:
    changed = spec.model_copy(update={"seed": 11, "end_date": "2001-06-30", "start_date": "2000-06-01"})
    _, result = drained(run_job(changed, JobEnvironment(store, tmp_path)))
    record = load_bundle(store, result.artifacts["model"]).manifest.training
    assert (record.seed, record.start_date, record.end_date) == (11, "2000-06-01", "2001-06-30")
    assert record.datasets[0].end == "2001-06-30T00:00:00+00:00"


def test_normalisation_is_stored_and_applied(
    trained: Any, strategy: Strategy, bars_of: Callable[..., Bars], drained: Drained
) -> None:
    data = drained(build_learning_set(strategy, {"AAA": {D1: bars_of()}}))[1]
    assert trained.bundle.manifest.scaler == data.scaler.to_json()
    assert data.scaler.kinds == ("none", "none", "zscore")
    test = data.split.test
    said = Classifier(trained.bundle.model_path()).probabilities(data.x_NF[test]).argmax(1)
    accuracy = float(np.mean(said == data.pooled.y_N[test]))
    assert trained.summary["test_accuracy"] == pytest.approx(accuracy)
    raw = compute_features(data.plan, {D1: bars_of()}).values_TF[data.pooled.feature_row_N]
    assert not np.array_equal(raw[:, -1], data.x_NF[:, -1])


def test_the_metrics_say_what_a_reader_must_know(trained: Any) -> None:
    metrics = trained.bundle.manifest.training.metrics
    for part in ("train", "validation", "test"):
        report = metrics[part]
        assert report["rows"] == metrics["rows"][part] == sum(map(sum, report["confusion"]))
        assert set(report["recall"]) == set(report["balance"]) == {"BUY", "HOLD", "SELL"}
        assert report["rows"] == sum(report["balance"].values())
        assert 0 < report["majority_accuracy"] < 1
    assert metrics["majority_class"] in ("BUY", "HOLD", "SELL")


def test_an_absent_gpu_is_said_in_the_result(
    strategy: Strategy, bars_of: Callable[..., Bars], store: FileArtifactStore, drained: Drained
) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has an MPS device")
    events, trained = drained(train_model(strategy, {"AAA": {D1: bars_of()}}, store, device="mps"))
    assert trained.document["device"] == "cpu"
    assert "no MPS device" in trained.document["device_note"]
    assert any("no MPS device" in event.message for event in events if isinstance(event, Progress))


def test_closing_the_job_stores_nothing(spec: TrainingSpec, store: FileArtifactStore, tmp_path: Path) -> None:
    before = set(store.digests())
    running = run_job(spec, JobEnvironment(store, tmp_path))
    for event in running:
        if isinstance(event, Metric):
            break
    running.close()
    assert set(store.digests()) == before
