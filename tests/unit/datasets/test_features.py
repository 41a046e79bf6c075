"""The feature function on one timeframe: names, order, warm-up, values, prefix law, scaling, errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.bars import Bars
from ktrdr.datasets.features import FeaturePlan, FeatureProgress, Features, compute_features, iterate_features
from ktrdr.datasets.scaling import Scaler
from ktrdr.errors import InvalidInput, InvalidModel, NotFound, TooFewBars
from ktrdr.indicators import catalog, compute
from ktrdr.strategies import Strategy, parse_strategy
from ktrdr.strategies.document import FuzzyInput, IndicatorUse, RawInput
from ktrdr.timeframe import Timeframe
from support.synthetic_bars import flat_bars, walk_bars

H1, D1 = Timeframe.H1, Timeframe.D1

DOCUMENT = """
name: test
version: "3.0"
description: all kinds of inputs
training_data: {symbols: [SYNTH], timeframes: [1h]}
indicators:
  rsi_5: {type: rsi, period: 5}
  macd: {type: macd, fast: 3, slow: 6, signal: 4}
  bands: {type: bollinger, period: 8, source: hlc3}
fuzzy_sets:
  momentum: {indicator: rsi_5, oversold: [-.inf, 20, 50], neutral: {type: gaussian, mean: 50, sigma: 15}, overbought: [50, 80, .inf]}
  stretch: {indicator: bands.percent_b, below: {type: z_shape, points: [0, 0.5]}, above: {type: s_shape, points: [0.5, 1]}}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {raw_indicator: macd.histogram, timeframes: [1h], normalization: zscore}
  - {fuzzy_set: stretch, timeframes: all}
  - {raw_indicator: rsi_5, timeframes: [1h], normalization: minmax}
  - {raw_indicator: bands.bandwidth, timeframes: [1h], normalization: none}
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
NAMES = (
    "1h_momentum_oversold",
    "1h_momentum_neutral",
    "1h_momentum_overbought",
    "1h_macd_histogram",
    "1h_stretch_below",
    "1h_stretch_above",
    "1h_rsi_5",
    "1h_bands_bandwidth",
)
#: 6 + 4 - 2 rows of MACD, and the rows until (5/7)^n and the signal line's echo of it fall below 1e-3; RSI: 5 + 31.
WARMUP = 5 + 31


@pytest.fixture(scope="module")
def strategy() -> Strategy:
    return parse_strategy(DOCUMENT)


@pytest.fixture(scope="module")
def plan(strategy: Strategy) -> FeaturePlan:
    return FeaturePlan.from_strategy(strategy)


def fitted(plan: FeaturePlan, bars: Bars) -> Scaler:
    features = compute_features(plan, {H1: bars})
    return Scaler.fit(features.values_TF[features.valid_T], plan.kinds)


def test_names_order_and_kinds(plan: FeaturePlan) -> None:
    assert plan.names == NAMES
    assert plan.kinds == ("none", "none", "none", "zscore", "none", "none", "minmax", "none")
    assert plan.needs_scaler
    assert plan.timeframes == (H1,)
    first = plan.columns[0]
    assert (first.timeframe, first.indicator, first.fuzzy_set, first.label) == (
        H1,
        "rsi_5",
        "momentum",
        "oversold",
    )


def test_warmup_is_lookback_and_margin_of_the_slowest_input(plan: FeaturePlan) -> None:
    """0.8^31 = 9.9e-4: RSI(5) forgets its seed in 31 rows after 5; MACD and the window of 8 need less."""
    assert plan.warmup(H1) == plan.warmup("1h") == WARMUP
    assert plan.warmup(D1) == 0


def test_values_are_the_indicators_through_the_fuzzy_sets(plan: FeaturePlan, strategy: Strategy) -> None:
    bars = walk_bars(200)
    features = compute_features(plan, {H1: bars})
    rsi = compute("rsi", bars, period=5)["rsi"]
    macd = compute("macd", bars, fast=3, slow=6, signal=4)["histogram"]
    bands = compute("bollinger", bars, period=8, source="hlc3")
    expected = np.column_stack(
        [
            strategy.fuzzy_sets["momentum"].variable.memberships(rsi),
            macd,
            strategy.fuzzy_sets["stretch"].variable.memberships(bands["percent_b"]),
            rsi,
            bands["bandwidth"],
        ]
    ).astype(np.float32)
    assert features.values_TF.dtype == np.float32
    np.testing.assert_array_equal(features.values_TF[WARMUP:], expected[WARMUP:])
    assert np.isnan(features.values_TF[:WARMUP]).all()
    assert features.first_valid == WARMUP
    np.testing.assert_array_equal(features.valid_T, np.arange(200) >= WARMUP)
    assert features.names == NAMES
    assert features.digest == plan.digest
    assert features.origins == {H1: bars.time[0]}
    assert len(features) == 200


def test_features_cannot_be_written(plan: FeaturePlan) -> None:
    features = compute_features(plan, {H1: walk_bars(60)})
    with pytest.raises(ValueError, match="read-only"):
        features.values_TF[0, 0] = 1.0


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 260), block=st.sampled_from([1, 7, 64, 10_000]))
def test_prefix_law(plan: FeaturePlan, seed: int, cut: int, block: int) -> None:
    """Fewer bars, another block size: the same bits."""
    bars = walk_bars(260, seed)
    scaler = fitted(plan, walk_bars(260, 99))
    whole = compute_features(plan, {H1: bars}, scaler=scaler)
    part = drained(plan, bars[:cut], scaler, block)[0]
    assert part.values_TF.tobytes() == whole.values_TF[:cut].tobytes()
    assert part.valid_T.tobytes() == whole.valid_T[:cut].tobytes()
    assert part.first_valid == min(cut, whole.first_valid)


def drained(
    plan: FeaturePlan, bars: Bars, scaler: Scaler | None, block: int
) -> tuple[Features, list[FeatureProgress]]:
    steps, seen = iterate_features(plan, {H1: bars}, scaler=scaler, block_rows=block), []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return stop.value, seen


def test_the_generator_yields_per_indicator_and_per_block(plan: FeaturePlan) -> None:
    _, seen = drained(plan, walk_bars(100), None, 40)
    assert [p.rows_done for p in seen] == [0, 0, 0, 40, 80, 100]
    assert {p.rows for p in seen} == {100}


def test_many_blocks_at_cache_borders(plan: FeaturePlan) -> None:
    bars = walk_bars(9_000)
    whole = compute_features(plan, {H1: bars})
    assert drained(plan, bars, None, 4_099)[0].values_TF.tobytes() == whole.values_TF.tobytes()


def test_scaling_inside_equals_scaling_after(plan: FeaturePlan) -> None:
    bars = walk_bars(300)
    scaler = fitted(plan, bars[:200])
    raw = compute_features(plan, {H1: bars})
    scaled = compute_features(plan, {H1: bars}, scaler=scaler)
    assert scaler.apply(raw.values_TF).tobytes() == scaled.values_TF.tobytes()
    train = scaled.values_TF[WARMUP:200]
    assert abs(train[:, 3].mean()) < 1e-5
    assert abs(train[:, 3].std() - 1.0) < 1e-5
    assert (train[:, 6].min(), train[:, 6].max()) == (0.0, 1.0)
    np.testing.assert_array_equal(scaled.values_TF[:, 7], raw.values_TF[:, 7])


def test_a_scaler_of_another_plan_is_refused(plan: FeaturePlan) -> None:
    scaler = Scaler(("none",), (0.0,), (1.0,))
    with pytest.raises(InvalidModel, match="Use the model with the strategy it was trained with"):
        compute_features(plan, {H1: walk_bars(60)}, scaler=scaler)


@pytest.mark.parametrize("rows", [0, 1, WARMUP])
def test_too_few_bars_give_no_valid_row(plan: FeaturePlan, rows: int) -> None:
    features = compute_features(plan, {H1: walk_bars(rows)})
    assert features.first_valid == rows
    assert not features.valid_T.any()
    with pytest.raises(TooFewBars, match=f"/1h: {rows} bars given, the first {WARMUP} are warm-up"):
        features.require_rows()


def test_enough_rows_pass(plan: FeaturePlan) -> None:
    features = compute_features(plan, {H1: walk_bars(WARMUP + 2)})
    features.require_rows(2)
    with pytest.raises(TooFewBars, match="3 rows of features are needed after warm-up, and there are 2"):
        features.require_rows(3)


def test_rows_that_are_not_numbers_are_not_valid(strategy: Strategy) -> None:
    """On-balance volume can pass the largest number; such rows are marked, not hidden."""
    bars = walk_bars(60)
    huge = dataclasses.replace(bars, volume=np.r_[bars.volume[:30], np.full(30, 1.7e308)])
    plan = FeaturePlan.from_strategy(
        dataclasses.replace(
            strategy,
            indicators={"obv": IndicatorUse("obv", "obv", {})},
            nn_inputs=(RawInput("obv", None, (H1,), "none"),),
        )
    )
    with np.errstate(over="ignore"):
        features = compute_features(plan, {H1: huge})
    level = compute("obv", huge)["obv"]
    assert not np.isfinite(level).all()
    np.testing.assert_array_equal(features.valid_T, np.isfinite(level))
    assert np.isnan(features.values_TF[~features.valid_T]).all()


def test_equal_definitions_are_computed_once_and_named_apart(strategy: Strategy) -> None:
    twice = dataclasses.replace(
        strategy,
        indicators={"a": IndicatorUse("a", "rsi", {"period": 5}), "b": IndicatorUse("b", "rsi", {})},
        nn_inputs=(RawInput("a", None, (H1,), "none"), RawInput("b", None, (H1,), "none")),
    )
    plan = FeaturePlan.from_strategy(twice)
    assert plan.names == ("1h_a", "1h_b")
    same = dataclasses.replace(
        twice, indicators=twice.indicators | {"b": IndicatorUse("b", "rsi", {"period": 5})}
    )
    columns = FeaturePlan.from_strategy(same).columns
    assert columns[0].series == columns[1].series


def changed(strategy: Strategy, old: str, new: str) -> str:
    assert old in DOCUMENT
    return FeaturePlan.from_strategy(parse_strategy(DOCUMENT.replace(old, new))).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("period: 5", "period: 6"),
        ("source: hlc3", "source: close"),
        ("mean: 50", "mean: 51"),
        ("percent_b", "upper"),
        ("normalization: minmax", "normalization: none"),
        ("neutral:", "middle:"),
        (
            "- {fuzzy_set: momentum, timeframes: all}\n  - {raw_indicator: macd.histogram, timeframes: [1h], normalization: zscore}",
            "- {raw_indicator: macd.histogram, timeframes: [1h], normalization: zscore}\n  - {fuzzy_set: momentum, timeframes: all}",
        ),
    ],
)
def test_the_digest_covers_definition_and_order(
    plan: FeaturePlan, strategy: Strategy, old: str, new: str
) -> None:
    assert changed(strategy, old, new) != plan.digest


def test_the_digest_leaves_out_what_makes_no_difference(plan: FeaturePlan, strategy: Strategy) -> None:
    assert changed(strategy, "description: all kinds of inputs", "description: other words") == plan.digest
    assert changed(strategy, "epochs: 2", "epochs: 3") == plan.digest


def test_a_repainting_indicator_is_refused(strategy: Strategy) -> None:
    known = dict(catalog()) | {"rsi": dataclasses.replace(catalog()["rsi"], repaints=True)}
    with pytest.raises(InvalidInput, match="/indicators/rsi_5: 'rsi' repaints"):
        FeaturePlan.from_strategy(strategy, known=known)


@pytest.mark.parametrize(
    ("inputs", "kind", "words"),
    [
        ((), InvalidInput, "at least one input is needed"),
        ((FuzzyInput("momentum", (H1, H1)),), InvalidInput, "two inputs are named '1h_momentum_neutral'"),
        (
            (FuzzyInput("momentun", (H1,)),),
            NotFound,
            "No fuzzy set named 'momentun'; did you mean 'momentum'",
        ),
        ((RawInput("rsi", None, (H1,)),), NotFound, "No indicator of the strategy named 'rsi'"),
        (
            (RawInput("macd", "histgram", (H1,)),),
            NotFound,
            "No output of indicator 'macd' named 'histgram'; did you",
        ),
    ],
)
def test_inputs_that_cannot_be_used(
    strategy: Strategy, inputs: tuple[FuzzyInput | RawInput, ...], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        FeaturePlan.from_strategy(dataclasses.replace(strategy, nn_inputs=inputs))


def test_an_indicator_type_that_does_not_exist(strategy: Strategy) -> None:
    wrong = dataclasses.replace(
        strategy, indicators=strategy.indicators | {"rsi_5": IndicatorUse("rsi_5", "rsy", {})}
    )
    with pytest.raises(NotFound, match="No indicator named 'rsy'; did you mean 'rsi'"):
        FeaturePlan.from_strategy(wrong)


def test_bars_that_do_not_fit(plan: FeaturePlan) -> None:
    with pytest.raises(InvalidInput, match="/1h: bars of this timeframe are needed; given: 1d"):
        compute_features(plan, {D1: walk_bars(60, timeframe=D1)})
    with pytest.raises(InvalidInput, match="/1h: these bars have timeframe 1d"):
        compute_features(plan, {H1: walk_bars(60, timeframe=D1)})
    with pytest.raises(InvalidInput, match="per symbol, seen bars of A, SYNTH"):
        compute_features(plan, {H1: walk_bars(60), D1: walk_bars(60, symbol="A")})


def test_flat_prices_have_features(plan: FeaturePlan) -> None:
    features = compute_features(plan, {H1: flat_bars(80)})
    assert features.valid_T[WARMUP:].all()
    np.testing.assert_allclose(features.values_TF[-1], [0, 1, 0, 0, 0, 0, 50, 0], atol=1e-6)
