"""Asking a model about bars: features, probabilities and decisions, for a backtest and for the newest bar alike.

Shape suffixes: ``T`` = bars of the base timeframe, ``C`` = classes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.bars import parse_time
from ktrdr.datasets.features import FeaturePlan, Features, iterate_features
from ktrdr.datasets.scaling import Scaler
from ktrdr.errors import FieldError, InvalidModel
from ktrdr.indicators import indicator
from ktrdr.jobs.market_data import SymbolBars
from ktrdr.models.bundle import Bundle
from ktrdr.models.decision import Decisions, decide
from ktrdr.models.inference import BLOCK_ROWS, Classifier
from ktrdr.strategies.document import Strategy

__all__ = ["Answers", "answer_bars", "plan_for", "scaler_of"]

_MOST_FAULTS_SHOWN = 10


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the model says at the close of each bar: ``probabilities_TC`` is NaN where there are no features."""

    features: Features
    probabilities_TC: npt.NDArray[np.float32]
    decisions: Decisions


def plan_for(bundle: Bundle, strategy: Strategy) -> FeaturePlan:
    """The strategy's features, once it is sure that the model was trained on exactly these.

    Raises
    ------
    InvalidModel
        If names, order or definitions differ; the first differences are listed.
    """
    plan = FeaturePlan.from_strategy(strategy)
    trained = bundle.manifest.features
    if plan.digest == trained.digest and plan.names == trained.names:
        return plan
    faults = []
    for position in range(max(len(plan.names), len(trained.names))):
        own, theirs = (
            names[position] if position < len(names) else None for names in (plan.names, trained.names)
        )
        if own != theirs:
            faults.append(FieldError(f"/nn_inputs/{position}", f"the strategy has {own}, the model {theirs}"))
    if not faults:
        faults = [FieldError("", "same names, but an indicator's parameters or a fuzzy set's numbers differ")]
    raise InvalidModel(
        f"The model {bundle.digest[:12]} (strategy '{bundle.manifest.strategy_name}', "
        f"{bundle.manifest.training.base_timeframe}) was trained on other inputs than strategy '{strategy.name}' "
        f"({strategy.base_timeframe}) has. Train it again, or use the model's own strategy",
        faults[:_MOST_FAULTS_SHOWN],
    )


def _require_origins(bundle: Bundle, plan: FeaturePlan, bars: SymbolBars) -> None:
    """Indicators that sum up from the first bar on must begin at the bar at which they began in training."""
    trained = {(data.symbol, data.timeframe): data.start for data in bundle.manifest.training.datasets}
    for series in {column.series for column in plan.columns}:
        part = bars.get(series.timeframe)
        if indicator(series.type).origin != "cumulative" or part is None or not len(part):
            continue
        start = trained.get((part.symbol, part.timeframe.value))
        if start is not None and parse_time(start) != part.time[0]:
            raise InvalidModel(
                f"'{series.type}' sums up from the first bar on, so its level depends on that bar: the model "
                f"{bundle.digest[:12]} was trained on {part.symbol} {part.timeframe} with the first bar at "
                f"{start[:16]}, these begin at {part.start.isoformat()[:16]}. Give bars from the same start, or train again."
            )


def scaler_of(bundle: Bundle) -> Scaler | None:
    """The scaler fitted at training, or None where no input needed one."""
    stored = bundle.manifest.scaler
    if stored is None:
        return None
    if not isinstance(stored, dict):
        raise InvalidModel(f"The bundle {bundle.digest[:12]} has a scaler that is no mapping: {stored!r}.")
    return Scaler.from_json(stored)


def answer_bars(
    bundle: Bundle, plan: FeaturePlan, bars: SymbolBars, *, threshold: float, first: int = 0, threads: int = 1
) -> Generator[str, None, Answers]:
    """Ask the model about every bar from row ``first`` on; yields a line for people after each block.

    Parameters
    ----------
    bars
        Bars of one symbol by timeframe, from the dataset's start: features begin there whatever ``first`` is.
    threshold
        See :func:`ktrdr.models.decision.decide`.
    first
        Rows before it get signal 0 and no probabilities.

    Raises
    ------
    InvalidModel
        If an indicator that sums up from the first bar on (OBV) would begin at another bar than in training.

    Notes
    -----
    Prefix law: with equal starts, answers on ``bars[:t]`` are the first t of these, bit for bit. So inference begins
    at a multiple of its block size, whatever ``first`` is: a row has the same place in its block in every run.
    """
    _require_origins(bundle, plan, bars)
    classifier = Classifier(bundle.model_path(), threads=threads)
    features = yield from _features(plan, bars, scaler_of(bundle))
    rows = len(features)
    first = max(first, features.first_valid)
    valid_T = features.valid_T
    if first > features.first_valid:
        valid_T = valid_T.copy()
        valid_T[:first] = False
    probabilities_TC = np.empty((rows, classifier.classes), np.float32)
    start = first // BLOCK_ROWS * BLOCK_ROWS
    for done in classifier.fill(features.values_TF[start:], probabilities_TC[start:]):
        yield f"asking the model: {start + done:,} of {rows:,} bars"
    probabilities_TC[:start] = np.nan
    probabilities_TC[start:][~valid_T[start:]] = np.nan
    return Answers(features, probabilities_TC, decide(probabilities_TC, threshold=threshold, valid_T=valid_T))


def _features(plan: FeaturePlan, bars: SymbolBars, scaler: Scaler | None) -> Generator[str, None, Features]:
    steps = iterate_features(plan, bars, scaler=scaler)
    while True:
        try:
            done = next(steps)
        except StopIteration as stop:
            features: Features = stop.value
            return features
        yield f"features: {done.rows_done:,} of {done.rows:,} bars"
