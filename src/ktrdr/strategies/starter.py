"""The commented document that ``ktrdr strategies new`` writes: valid as it stands."""

from __future__ import annotations

import re

from ktrdr.errors import InvalidInput
from ktrdr.strategies.schema import STRATEGY_NAME

__all__ = ["starter"]

_TEXT = """\
# A ktrdr strategy: indicators -> fuzzy sets -> network -> BUY / HOLD / SELL.
# Every key is described in docs/reference/strategy-document.md; check your changes with:
#   ktrdr strategies validate {name}.yaml
name: {name}
version: "3.0"
description: RSI and distance from the Bollinger bands, read by a small network

# What the model learns from. Keep some later dates out, so that a backtest can be run on dates it never saw.
training_data:
  symbols: [SP500]
  timeframes: [1d]
  start_date: 1999-01-01
  end_date: 2012-12-31

# Indicators of the catalog, under names of your choice.
indicators:
  rsi_14: {{type: rsi, period: 14}}
  bands_20: {{type: bollinger, period: 20}}

# Words for their values. 3 numbers make a triangle, 4 a trapezoid; .inf opens a shoulder.
# `bands_20.percent_b` is one of several outputs of an indicator; without a dot it is the first.
fuzzy_sets:
  momentum:
    indicator: rsi_14
    low: [-.inf, -.inf, 30, 50]
    middle: [30, 50, 70]
    high: [50, 70, .inf, .inf]
  place:
    indicator: bands_20.percent_b
    below: [-.inf, -.inf, 0.0, 0.5]
    inside: [0.0, 0.5, 1.0]
    above: [0.5, 1.0, .inf, .inf]

# What the network sees, in this order: each word of a fuzzy set is one input.
nn_inputs:
  - {{fuzzy_set: momentum, timeframes: all}}
  - {{fuzzy_set: place, timeframes: all}}

model:
  type: mlp
  architecture: {{hidden_layers: [16, 8], activation: relu, dropout: 0.1}}

training:
  # BUY if the price rises by 1.5 ATRs before it falls by 1.5, SELL the other way, HOLD if neither within 10 bars.
  labels: {{source: triple_barrier, profit_target_atr: 1.5, stop_loss_atr: 1.5, max_holding_bars: 10}}
  data_split: {{train: 0.7, validation: 0.15, test: 0.15, embargo: 0.01}}
  epochs: 50
  batch_size: 128
  optimizer: {{type: adam, learning_rate: 0.002, weight_decay: 0.0001}}
  scheduler: {{type: reduce_on_plateau, patience: 5, factor: 0.5}}
  early_stopping: {{monitor: val_loss, patience: 12, min_delta: 0.0001}}
  loss: {{type: cross_entropy, class_weights: balanced, max_class_weight: 5}}
  gradient_clip: 1.0
  seed: 7

# From probabilities to signals. A signal needs at least this probability; three classes by chance have 0.33 each.
decisions:
  confidence_threshold: 0.36
  allow_short_from_flat: false
  min_signal_separation_bars: 2

# The simulated account: decisions at a close fill at the next open.
backtest:
  initial_capital: 100000
  sizing: {{type: fraction, fraction: 1.0, lot_step: 1}}
  costs: {{commission: 0.0005, slippage_bps: 1}}
"""


def starter(name: str) -> str:
    """A commented, valid document of this name.

    Raises
    ------
    InvalidInput
        If ``name`` is not a possible strategy name.
    """
    if not re.fullmatch(STRATEGY_NAME.pattern or "", name):
        raise InvalidInput(f"'{name}' is not a possible strategy name: {STRATEGY_NAME.rule}.")
    return _TEXT.format(name=name)
