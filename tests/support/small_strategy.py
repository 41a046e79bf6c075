"""A small strategy document, changes to it, and the faults that are found in it."""

from __future__ import annotations

import pytest

from ktrdr.errors import InvalidStrategy
from ktrdr.strategies import parse_strategy

SMALL = """\
name: small
version: "3.0"
training_data:
  symbols: [EURUSD]
  timeframes: [1h]
indicators:
  rsi_14: {type: rsi, period: 14}
  macd: {type: macd}
fuzzy_sets:
  momentum:
    indicator: rsi_14
    low: [0, 20, 40]
    high: [60, 80, 100]
nn_inputs:
  - {fuzzy_set: momentum}
model: {type: mlp}
training:
  labels: {source: forward_return}
"""


TRAINING = "  labels: {source: forward_return}\n"


def changed(*pairs: tuple[str, str], base: str = SMALL) -> str:
    for old, new in pairs:
        assert base.count(old) == 1, f"{old!r} must stand in the document once"
        base = base.replace(old, new)
    return base


def faults_of(text: str) -> list[tuple[str, str]]:
    with pytest.raises(InvalidStrategy) as caught:
        parse_strategy(text)
    assert all(error.line and error.column for error in caught.value.errors)
    return [(error.pointer, error.message) for error in caught.value.errors]
