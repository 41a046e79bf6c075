"""Features of two timeframes: a higher bar counts from the moment it is complete, never before."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.bars import Bars
from ktrdr.datasets.features import STALE_AFTER_US, FeaturePlan, compute_features
from ktrdr.indicators import compute
from ktrdr.market.calendars import known_at
from ktrdr.market.resample import resample
from ktrdr.market.samples import load_sample
from ktrdr.strategies import parse_strategy
from ktrdr.timeframe import Timeframe
from support.synthetic_bars import walk_bars

H1, D1 = Timeframe.H1, Timeframe.D1
DAY_US = D1.microseconds

DOCUMENT = """
name: two
version: "3.0"
description: hours and days
training_data: {symbols: [EURUSD], timeframes: [1h, 1d]}
indicators:
  fast: {type: roc, period: 2}
  slow: {type: sma, period: 3}
fuzzy_sets:
  speed: {indicator: fast, falling: {type: sigmoid, center: 0, slope: -2}, rising: {type: sigmoid, center: 0, slope: 2}}
nn_inputs:
  - {fuzzy_set: speed, timeframes: all}
  - {raw_indicator: slow, timeframes: [1d], normalization: none}
model: {type: mlp, architecture: {hidden_layers: [4], activation: relu, dropout: 0.0}}
training:
  labels: {source: forward_return, horizon_bars: 3, threshold: 0.0}
  data_split: {train: 0.7, validation: 0.15, test: 0.15, embargo: 0.0}
  epochs: 2
  batch_size: 32
  optimizer: {type: adam, learning_rate: 0.01}
  loss: {type: cross_entropy}
  seed: 1
decisions: {output_format: classification, confidence_threshold: 0.0}
backtest: {initial_capital: 1000}
"""


@pytest.fixture(scope="module")
def plan() -> FeaturePlan:
    return FeaturePlan.from_strategy(parse_strategy(DOCUMENT))


def without_weekends(bars: Bars) -> Bars:
    """FX hours: from Sunday 22:00 to Friday 21:00 UTC, as if New York never changed its clocks."""
    hours = (bars.time // H1.microseconds) % (7 * 24)  # the epoch was a Thursday
    friday_evening, sunday_evening = 24 + 21, 3 * 24 + 22
    keep = (hours < friday_evening) | (hours >= sunday_evening)
    columns = {c: getattr(bars, c)[keep] for c in ("time", "open", "high", "low", "close", "volume")}
    return dataclasses.replace(bars, **columns, calendar="24/5")


def test_order_is_input_then_timeframe_then_label(plan: FeaturePlan) -> None:
    assert plan.names == (
        "1h_speed_falling",
        "1h_speed_rising",
        "1d_speed_falling",
        "1d_speed_rising",
        "1d_slow",
    )
    assert plan.timeframes == (H1, D1)
    assert (plan.warmup(H1), plan.warmup(D1)) == (2, 2)


def test_days_around_the_clock_by_hand(plan: FeaturePlan) -> None:
    """The day that opens at midnight is complete with the bar of 23:00, and not one bar earlier."""
    hours, days = walk_bars(24 * 6, 1), walk_bars(6, 2, D1)
    features = compute_features(plan, {H1: hours, D1: days})
    sma = compute("sma", days, period=3)["sma"].astype(np.float32)
    slow = features.values_TF[:, 4]
    # SMA(3) exists on the third day, which is complete at row 71
    assert features.first_valid == 71
    assert np.isnan(slow[:71]).all()
    assert (slow[71:95] == sma[2]).all()
    assert (slow[95:119] == sma[3]).all()
    assert slow[143] == sma[5]
    assert features.origins == {H1: hours.time[0], D1: days.time[0]}


@pytest.mark.parametrize("source", ["synthetic", "sample"])
def test_a_daily_value_of_eurusd_is_invisible_before_the_daily_close(plan: FeaturePlan, source: str) -> None:
    """Each day in turn gets other prices: no hour that is known before that day's close may notice."""
    hours = (
        load_sample("EURUSD", H1)[:600]
        if source == "sample"
        else without_weekends(walk_bars(900, symbol="EURUSD"))
    )
    days = resample(hours, D1)
    features = compute_features(plan, {H1: hours, D1: days})
    hour_known, day_known = known_at(hours), known_at(days)
    for day in range(4, len(days), 5):
        spiked = dataclasses.replace(
            days, **{c: np.where(np.arange(len(days)) >= day, getattr(days, c) * 3.0, getattr(days, c))
                     for c in ("open", "high", "low", "close")}
        )  # fmt: skip
        other = compute_features(plan, {H1: hours, D1: spiked})
        before = hour_known < day_known[day]
        assert other.values_TF[before].tobytes() == features.values_TF[before].tobytes()
        after = np.flatnonzero(~before)
        if len(after):
            assert other.values_TF[after[0], 4] != features.values_TF[after[0], 4], (
                "it does notice at the close"
            )


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 500))
def test_prefix_law(plan: FeaturePlan, seed: int, cut: int) -> None:
    """Cutting the hours, and with them the days that are resampled from them, changes no earlier bit."""
    hours = without_weekends(walk_bars(700, seed))[:500]
    whole = compute_features(plan, {H1: hours, D1: resample(hours, D1)})
    part = compute_features(plan, {H1: hours[:cut], D1: resample(hours[:cut], D1)})
    assert part.values_TF.tobytes() == whole.values_TF[:cut].tobytes()
    assert part.valid_T.tobytes() == whole.valid_T[:cut].tobytes()


def test_the_last_known_day_stays_until_the_next_one(plan: FeaturePlan) -> None:
    """A missing day leaves the one before it in force: gaps are not filled with anything newer."""
    hours, days = walk_bars(24 * 8, 1), walk_bars(8, 2, D1)
    keep = np.arange(8) != 5
    gappy = dataclasses.replace(
        days, **{c: getattr(days, c)[keep] for c in ("time", "open", "high", "low", "close", "volume")}
    )
    slow = compute_features(plan, {H1: hours, D1: gappy}).values_TF[:, 4]
    assert len(set(slow[119:167])) == 1
    assert slow[167] != slow[166]


def test_a_day_that_is_weeks_old_is_no_longer_in_force(plan: FeaturePlan) -> None:
    """Days that end, or have a hole, while the hours go on: stale values are not features, and prefixes agree."""
    hours, days = walk_bars(24 * 60, 1), walk_bars(60, 2, D1)
    keep = (np.arange(60) < 10) | (np.arange(60) > 40)
    holed = dataclasses.replace(
        days, **{c: getattr(days, c)[keep] for c in ("time", "open", "high", "low", "close", "volume")}
    )
    features = compute_features(plan, {H1: hours, D1: holed})
    known = known_at(hours)
    last_seen = known_at(days)[9]
    stale = (known > last_seen + STALE_AFTER_US + DAY_US) & (known < known_at(days)[41])
    assert 300 < stale.sum() < 24 * 30
    assert not features.valid_T[stale].any()
    assert np.isnan(features.values_TF[stale]).all()
    assert features.valid_T[71:][~stale[71:]].all()
    ended = compute_features(plan, {H1: hours, D1: holed[:10]})
    assert ended.valid_T.tobytes() == (features.valid_T & (known < known_at(days)[41])).tobytes()


def test_no_higher_bars_at_all(plan: FeaturePlan) -> None:
    days = walk_bars(3, 2, D1, start_us=4_000 * DAY_US)
    features = compute_features(plan, {H1: walk_bars(50), D1: days[:0]})
    assert not features.valid_T.any()
    assert features.first_valid == 50
    assert list(features.origins) == [H1]
