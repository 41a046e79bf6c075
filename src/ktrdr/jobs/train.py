"""The training job: bars and a strategy in, a model bundle out."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np

from ktrdr.artifacts import ArtifactStore
from ktrdr.clock import Clock
from ktrdr.errors import InvalidInput, UnusableCheckpoint
from ktrdr.jobs.checkpoint import Checkpoint, ResumePoint
from ktrdr.jobs.environment import Job, JobEnvironment, JobResult
from ktrdr.jobs.learning_remarks import remarks_on_learning
from ktrdr.jobs.learning_set import LearningSet, build_learning_set
from ktrdr.jobs.market_data import Market, load_market
from ktrdr.models.architecture import CLASSES, MlpArchitecture
from ktrdr.models.bundle import (
    Bundle,
    BundleManifest,
    DatasetUse,
    FeatureIdentity,
    JsonValue,
    TrainingRecord,
    save_bundle,
)
from ktrdr.models.inference import Classifier
from ktrdr.models.onnx_graph import build_onnx
from ktrdr.operations.progress import Metric, Progress, Scalar
from ktrdr.protocol.specs import TrainingSpec
from ktrdr.strategies.document import Strategy
from ktrdr.strategies.parse import parse_strategy, with_overrides
from ktrdr.training.device import DeviceChoice, choose_device
from ktrdr.training.evaluation import ClassReport, report_classes
from ktrdr.training.fit import BatchDone, EpochResult, FitResult, Samples, fit
from ktrdr.training.state import FitState

__all__ = ["Trained", "train_job", "train_model"]

_Events = Generator[Progress | Metric | ResumePoint, None, "Trained"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives: the stored bundle, and the result document of the operation."""

    bundle: Bundle
    document: dict[str, JsonValue]
    summary: dict[str, JsonValue]


def train_job(spec: TrainingSpec, env: JobEnvironment) -> Job:
    """Run a training specification; artifacts ``model`` (bundle.json), its member files, and ``result`` (JSON)."""
    strategy = with_overrides(
        parse_strategy(spec.strategy, source=spec.strategy_name),
        symbols=spec.symbols,
        timeframes=spec.timeframes,
        start_date=spec.start_date,
        end_date=spec.end_date,
        seed=spec.seed,
    )
    done = 0 if env.resume is None else env.resume.done
    yield Progress(done, strategy.training.epochs, "loading bars")
    market = load_market(spec.datasets, env.artifacts)
    trained = yield from train_model(
        strategy, market, env.artifacts, device=spec.device, threads=spec.threads, resume=env.resume
    )
    content = json.dumps(trained.document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    digest = env.artifacts.put(content)
    # The members come first: whoever copies the artifacts in order never has a bundle.json without its files.
    files = trained.bundle.manifest.files
    return JobResult(trained.summary, {**files, "model": trained.bundle.digest, "result": digest})


def train_model(
    strategy: Strategy,
    market: Market,
    artifacts: ArtifactStore,
    *,
    device: str = "auto",
    threads: int = 1,
    clock: Clock | None = None,
    resume: Checkpoint | None = None,
) -> _Events:
    """Train the strategy's network and store the bundle.

    Parameters
    ----------
    strategy
        With every override applied; its ``training.seed`` is the seed.
    market
        Bars by symbol and timeframe, from the dataset's start.
    artifacts
        Where the bundle goes.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``; an absent GPU falls back to the CPU and the result says so.
    threads
        Threads of torch.
    clock
        Paces the progress; changes no number.
    resume
        Where to go on; the epochs before it are not run again.

    Yields
    ------
    Progress
        ``items_done`` epochs of ``items_total``; context ``epoch, total_epochs, train_loss, val_loss``.
    Metric
        One per epoch that is run: ``epoch, train_loss, val_loss, val_accuracy, learning_rate, improved``.
    ResumePoint
        After every epoch, and several times a second inside of one.

    Raises
    ------
    UnusableCheckpoint
        If ``resume`` is of another network.
    TooFewBars, InvalidInput
        As :func:`ktrdr.jobs.learning_set.build_learning_set` and :func:`ktrdr.training.fit.fit`.
    """
    epochs, done = strategy.training.epochs, 0 if resume is None else resume.done
    data = yield from _with_progress(strategy, market, done)
    choice = choose_device(device)
    yield Progress(done, epochs, choice.note or f"fitting {len(data.split.train):,} rows on {choice.used}")
    architecture = MlpArchitecture(
        inputs=len(data.plan.names),
        hidden_layers=strategy.model.hidden_layers,
        activation=strategy.model.activation,
        dropout=strategy.model.dropout,
    )
    fitted = yield from _fit(data, architecture, strategy, choice, threads, clock, resume)
    yield Progress(len(fitted.history), epochs, "storing the model", _context(fitted.history[-1]))
    return _stored(artifacts, strategy, data, architecture, fitted, choice, threads)


def _stored(
    artifacts: ArtifactStore,
    strategy: Strategy,
    data: LearningSet,
    architecture: MlpArchitecture,
    fitted: FitResult,
    choice: DeviceChoice,
    threads: int,
) -> Trained:
    """Judge the network and store it with all that tells what it is."""
    model = build_onnx(architecture, fitted.weights)
    metrics = _metrics(data, fitted, Classifier(model))
    manifest = _manifest(strategy, data, architecture, fitted, metrics, choice, threads)
    bundle = save_bundle(artifacts, manifest, model=model, weights=fitted.weights)
    told: dict[str, JsonValue] = {"warnings": [*remarks_on_learning(data)]}
    return Trained(bundle, _document(bundle, strategy, choice) | told, _summary(bundle, metrics) | told)


def _with_progress(strategy: Strategy, market: Market, done: int) -> Generator[Progress, None, LearningSet]:
    steps = build_learning_set(strategy, market)
    while True:
        try:
            yield Progress(done, strategy.training.epochs, next(steps))
        except StopIteration as stop:
            learning_set: LearningSet = stop.value
            return learning_set


def _fit(
    data: LearningSet,
    architecture: MlpArchitecture,
    strategy: Strategy,
    choice: DeviceChoice,
    threads: int,
    clock: Clock | None,
    resume: Checkpoint | None,
) -> Generator[Progress | Metric | ResumePoint, None, FitResult]:
    y_N, split = data.pooled.y_N, data.split
    train = Samples(data.x_NF[split.train], y_N[split.train])
    validation = Samples(data.x_NF[split.validation], y_N[split.validation])
    config = strategy.training
    state = FitState.start(architecture, config, config.seed, choice.torch_device)
    if resume is not None:
        try:
            state.restore(resume.snapshot)
        except InvalidInput as error:
            raise UnusableCheckpoint(error.message) from None
    loop = fit(
        train, validation, architecture, config, device=choice, threads=threads, clock=clock, state=state
    )
    try:
        while True:
            try:
                event = next(loop)
            except StopIteration as stop:
                result: FitResult = stop.value
                return result
            if isinstance(event, EpochResult):
                yield Metric(_epoch_record(event))
            yield ResumePoint(len(state.history), event.total_epochs, "epochs", state.snapshot)
            if isinstance(event, EpochResult):
                yield Progress(event.epoch, event.total_epochs, _epoch_line(event), _context(event))
            else:
                yield _batch_progress(event, state.history[-1] if state.history else None)
    finally:
        loop.close()


def _epoch_record(event: EpochResult) -> dict[str, Scalar]:
    return {
        "epoch": event.epoch,
        "train_loss": event.train_loss,
        "val_loss": event.val_loss,
        "val_accuracy": event.val_accuracy,
        "learning_rate": event.learning_rate,
        "improved": event.improved,
    }


def _epoch_line(event: EpochResult) -> str:
    return f"epoch {event.epoch} of {event.total_epochs}: train {event.train_loss:.4f}, validation {event.val_loss:.4f}"


def _context(event: EpochResult) -> dict[str, Scalar]:
    return {
        "epoch": event.epoch,
        "total_epochs": event.total_epochs,
        "train_loss": event.train_loss,
        "val_loss": event.val_loss,
    }


def _batch_progress(event: BatchDone, last: EpochResult | None) -> Progress:
    context: dict[str, Scalar] = {
        "epoch": event.epoch,
        "total_epochs": event.total_epochs,
        "train_loss": event.train_loss,
        "val_loss": None if last is None else last.val_loss,
    }
    line = f"epoch {event.epoch} of {event.total_epochs}: batch {event.batch:,} of {event.total_batches:,}"
    return Progress(event.epoch - 1, event.total_epochs, line, context)


def _metrics(data: LearningSet, fitted: FitResult, classifier: Classifier) -> dict[str, JsonValue]:
    """Scores by the network as it will be asked later: through onnxruntime, with the best weights."""
    y_N = data.pooled.y_N
    majority = int(np.bincount(y_N[data.split.train].astype(np.int64), minlength=len(CLASSES)).argmax())
    reports: dict[str, ClassReport | None] = {
        name: report_classes(y_N[rows], classifier.probabilities(data.x_NF[rows]), majority=majority)
        for name, rows in (
            ("train", data.split.train),
            ("validation", data.split.validation),
            ("test", data.split.test),
        )
    }
    best = fitted.history[fitted.best_epoch - 1]
    test = reports["test"]
    return {
        "best_epoch": fitted.best_epoch,
        "epochs_trained": len(fitted.history),
        "stopped_early": fitted.stopped_early,
        "train_loss": best.train_loss,
        "val_loss": best.val_loss,
        "val_accuracy": best.val_accuracy,
        "test_accuracy": None if test is None else test.accuracy,
        "test_majority_accuracy": None if test is None else test.majority_accuracy,
        "majority_class": CLASSES[majority],
        "rows": asdict(data.counts),
        "rows_by_symbol": {symbol: {**rows} for symbol, rows in data.rows_by_symbol().items()},
        **{name: None if report is None else asdict(report) for name, report in reports.items()},
    }


def _manifest(
    strategy: Strategy,
    data: LearningSet,
    architecture: MlpArchitecture,
    fitted: FitResult,
    metrics: dict[str, JsonValue],
    choice: DeviceChoice,
    threads: int,
) -> BundleManifest:
    dates = strategy.training_data
    record = TrainingRecord(
        symbols=strategy.symbols,
        timeframes=tuple(timeframe.value for timeframe in data.plan.timeframes),
        base_timeframe=strategy.base_timeframe.value,
        start_date=None if dates.start_date is None else dates.start_date.isoformat(),
        end_date=None if dates.end_date is None else dates.end_date.isoformat(),
        datasets=_datasets(data),
        seed=strategy.training.seed,
        device=choice.used,
        threads=threads,
        metrics=metrics,
        history=tuple(dict(_epoch_record(event)) for event in fitted.history),
    )
    return BundleManifest(
        strategy_name=strategy.name,
        strategy=strategy.text,
        architecture=architecture,
        features=FeatureIdentity(
            names=data.plan.names, digest=data.plan.digest, warmup_bars=data.warmup_bars
        ),
        scaler=None if data.scaler is None else data.scaler.to_json(),
        training=record,
        code_version=version("ktrdr"),
        files={},
    )


def _datasets(data: LearningSet) -> tuple[DatasetUse, ...]:
    """The bars that were looked at: those after the training range are not part of it."""
    return tuple(
        DatasetUse(
            symbol=symbol,
            timeframe=timeframe.value,
            digest=bars.digest(),
            start=bars.start.isoformat(),
            end=bars.end.isoformat(),
            rows=len(bars),
        )
        for symbol, by_timeframe in data.bars_used.items()
        for timeframe, bars in by_timeframe.items()
    )


def _document(bundle: Bundle, strategy: Strategy, choice: DeviceChoice) -> dict[str, JsonValue]:
    record = bundle.manifest.training.model_dump(mode="json")
    return {
        "kind": "training",
        "strategy_name": strategy.name,
        "model_digest": bundle.digest,
        "features": bundle.manifest.features.model_dump(mode="json"),
        "device_requested": choice.requested,
        "device_note": choice.note,
        **record,
    }


def _summary(bundle: Bundle, metrics: dict[str, JsonValue]) -> dict[str, JsonValue]:
    figures = (
        "val_loss",
        "val_accuracy",
        "train_loss",
        "best_epoch",
        "epochs_trained",
        "stopped_early",
        "test_accuracy",
        "test_majority_accuracy",
    )
    return {"model_digest": bundle.digest, "device": bundle.manifest.training.device} | {
        name: metrics[name] for name in figures
    }
