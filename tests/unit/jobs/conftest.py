"""A small strategy over made-up bars: fast to train, with both kinds of inputs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.strategies import Strategy, parse_strategy
from ktrdr.timeframe import Timeframe

TEXT = """\
name: small
version: "3.0"
description: RSI memberships and a raw rate of change
training_data: {symbols: [AAA], timeframes: [1d]}
indicators:
  rsi_3: {type: rsi, period: 3}
  roc_5: {type: roc, period: 5}
fuzzy_sets:
  momentum: {indicator: rsi_3, low: [-.inf, -.inf, 30, 60], high: [40, 70, .inf, .inf]}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {raw_indicator: roc_5, timeframes: all, normalization: zscore}
model: {type: mlp, architecture: {hidden_layers: [6], activation: relu}}
training:
  labels: {source: forward_return, horizon_bars: 3, threshold: 0.005}
  data_split: {train: 0.6, validation: 0.2, test: 0.2, embargo: 0.01}
  epochs: 4
  batch_size: 64
  optimizer: {type: adam, learning_rate: 0.01}
  seed: 3
decisions: {confidence_threshold: 0.0}
backtest:
  initial_capital: 10000
  sizing: {type: fraction, fraction: 1.0, lot_step: 0}
  costs: {commission: 0.0001, slippage_bps: 1}
"""

DAY = 86_400_000_000


def make_bars(symbol: str = "AAA", rows: int = 600, seed: int = 1, first_day: int = 11_000) -> Bars:
    """A random walk of daily bars with a slow swing in it."""
    random = np.random.default_rng(seed)
    steps = random.normal(0.0, 0.01, rows) + 0.004 * np.sin(np.arange(rows) / 9.0)
    close = 50.0 * np.exp(np.cumsum(steps))
    open_ = np.concatenate([[50.0], close[:-1]])
    high, low = np.maximum(open_, close) * 1.002, np.minimum(open_, close) * 0.998
    stamps = (first_day + np.arange(rows, dtype=np.int64)) * DAY
    return Bars(symbol, Timeframe.D1, stamps, open_, high, low, close, np.full(rows, 1e6))


def drain(steps: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    events = []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as stop:
            return events, stop.value


@pytest.fixture
def strategy() -> Strategy:
    return parse_strategy(TEXT)


@pytest.fixture
def bars_of() -> Callable[..., Bars]:
    return make_bars


@pytest.fixture
def drained() -> Callable[[Generator[Any, None, Any]], tuple[list[Any], Any]]:
    return drain


@pytest.fixture
def store(tmp_path: Path) -> FileArtifactStore:
    return FileArtifactStore(tmp_path / "artifacts")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small strategy trained once on 600 made-up bars."""
    from ktrdr.jobs.train import train_model

    folder = tmp_path_factory.mktemp("trained")
    market = {"AAA": {Timeframe.D1: make_bars()}}
    return drain(train_model(parse_strategy(TEXT), market, FileArtifactStore(folder), device="cpu"))[1]
