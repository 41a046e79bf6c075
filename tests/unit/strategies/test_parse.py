"""Parsing: the whole document becomes frozen objects, or every fault is told with its place."""

from __future__ import annotations

import dataclasses
from datetime import date

import pytest

from ktrdr.fuzzy import membership
from ktrdr.strategies import parse_strategy
from ktrdr.strategies.document import (
    BacktestConfig,
    DataSplit,
    DecisionConfig,
    EarlyStopping,
    ForwardReturnLabels,
    FuzzyInput,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RawInput,
    ReduceOnPlateau,
    SizingConfig,
    StepDecay,
    TrainingConfig,
    TripleBarrierLabels,
    ZigzagLabels,
)
from ktrdr.timeframe import Timeframe
from support.small_strategy import SMALL, TRAINING, changed


def test_the_smallest_document_takes_all_defaults():
    s = parse_strategy(SMALL)
    assert (s.name, s.version, s.description) == ("small", "3.0", "")
    assert s.symbols == ("EURUSD",)
    assert s.timeframes == (Timeframe.H1,)
    assert s.base_timeframe is Timeframe.H1
    assert (s.training_data.start_date, s.training_data.end_date) == (None, None)
    assert s.indicators["rsi_14"].params == {"period": 14, "source": "close"}
    assert s.indicators["macd"].params == {"fast": 12, "slow": 26, "signal": 9, "source": "close"}
    use = s.fuzzy_sets["momentum"]
    assert (use.name, use.indicator, use.output) == ("momentum", "rsi_14", None)
    assert use.variable.sets == (
        ("low", membership("triangular", 0, 20, 40)),
        ("high", membership("triangular", 60, 80, 100)),
    )
    assert s.nn_inputs == (FuzzyInput("momentum", (Timeframe.H1,)),)
    assert s.model == ModelConfig()
    assert s.training == TrainingConfig(ForwardReturnLabels())
    assert s.decisions == DecisionConfig()
    assert s.backtest == BacktestConfig()
    assert s.text == SMALL


def test_parsing_the_text_again_gives_an_equal_strategy():
    once = parse_strategy(SMALL)
    assert parse_strategy(once.text) == once


def test_objects_are_frozen():
    s = parse_strategy(SMALL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        s.indicators["x"] = s.indicators["macd"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        ("SP500", ("SP500",)),
        ("[SP500, NASDAQ]", ("SP500", "NASDAQ")),
        ("{mode: single, symbol: SP500}", ("SP500",)),
        ("{mode: multi_symbol, list: [A, B]}", ("A", "B")),
        ("[TRUE, NO, '600519', ^GSPC, BRK.B]", ("TRUE", "NO", "600519", "^GSPC", "BRK.B")),
    ],
)
def test_forms_of_symbols(symbols, expected):
    assert parse_strategy(changed(("[EURUSD]", symbols))).symbols == expected


@pytest.mark.parametrize(
    ("timeframes", "all_of_them", "base"),
    [
        ("4h", ("4h",), "4h"),
        ("[1d, 1h]", ("1h", "1d"), "1h"),
        ("{mode: single, timeframe: 1d}", ("1d",), "1d"),
        ("{mode: multi_timeframe, list: [1d, 4h]}", ("4h", "1d"), "4h"),
        ("{mode: multi_timeframe, list: [1h, 1d, 4h], base_timeframe: 4h}", ("4h", "1h", "1d"), "4h"),
    ],
)
def test_forms_of_timeframes(timeframes, all_of_them, base):
    s = parse_strategy(changed(("[1h]", timeframes)))
    assert s.timeframes == all_of_them
    assert s.base_timeframe == base


def test_inputs_of_several_timeframes():
    text = changed(
        ("[1h]", "[1h, 1d]"),
        (
            "  - {fuzzy_set: momentum}\n",
            "  - {fuzzy_set: momentum, timeframes: all}\n"
            "  - {raw_indicator: macd.histogram, timeframes: [1d], normalization: minmax}\n"
            "  - {raw_indicator: rsi_14, timeframes: 1h}\n",
        ),
    )
    assert parse_strategy(text).nn_inputs == (
        FuzzyInput("momentum", (Timeframe.H1, Timeframe.D1)),
        RawInput("macd", "histogram", (Timeframe.D1,), "minmax"),
        RawInput("rsi_14", None, (Timeframe.H1,), "zscore"),
    )


def test_shapes_by_name_and_open_shoulders():
    text = changed(
        ("low: [0, 20, 40]", "low: [-.inf, -inf, 20, 40]"),
        ("high: [60, 80, 100]", "high: {type: gaussian, mean: 80, sigma: 10}"),
    )
    sets = dict(parse_strategy(text).fuzzy_sets["momentum"].variable.sets)
    assert sets["low"](0.0) == 1.0
    assert sets["high"] == membership("gaussian", mean=80, sigma=10)


@pytest.mark.parametrize(
    ("yaml", "field", "value"),
    [
        ("labels: {source: zigzag, threshold: 0.05, min_move: 0.01}", "labels", ZigzagLabels(0.05, 0.01)),
        (
            "labels: {source: triple_barrier, profit_target_atr: 3, stop_loss_atr: 1.5, "
            "max_holding_bars: 9, atr_period: 7}",
            "labels",
            TripleBarrierLabels(3, 1.5, 9, 7),
        ),
        (
            "labels: {source: forward_return, horizon_bars: 8, threshold: 0.02}",
            "labels",
            ForwardReturnLabels(8, 0.02),
        ),
        (
            "data_split: {train: 0.5, validation: 0.3, test: 0.2, embargo: 0.05}",
            "data_split",
            DataSplit(0.5, 0.3, 0.2, 0.05),
        ),
        ("epochs: 3", "epochs", 3),
        ("batch_size: 32", "batch_size", 32),
        ("optimizer: {learning_rate: 0.01}", "optimizer", OptimizerConfig("adam", 0.01)),
        (
            "optimizer: {type: adamw, weight_decay: 0.1}",
            "optimizer",
            OptimizerConfig("adamw", weight_decay=0.1),
        ),
        (
            "optimizer: {type: sgd, momentum: 0.5, learning_rate: 1e-2}",
            "optimizer",
            OptimizerConfig("sgd", 0.01, 0.0, 0.5),
        ),
        ("scheduler: {type: none}", "scheduler", None),
        ("scheduler: null", "scheduler", None),
        (
            "scheduler: {type: reduce_on_plateau, patience: 2, factor: 0.1, min_learning_rate: 0.001}",
            "scheduler",
            ReduceOnPlateau(2, 0.1, 0.001),
        ),
        ("scheduler: {type: step, step_epochs: 7, factor: 0.9}", "scheduler", StepDecay(7, 0.9)),
        (
            "early_stopping: {monitor: val_accuracy, patience: 4, min_delta: 0.01}",
            "early_stopping",
            EarlyStopping("val_accuracy", 4, 0.01),
        ),
        ("early_stopping: ~", "early_stopping", None),
        ("loss: {type: cross_entropy}", "loss", LossConfig()),
        (
            "loss: {class_weights: balanced, max_class_weight: 3}",
            "loss",
            LossConfig("cross_entropy", "balanced", 3),
        ),
        ("gradient_clip: 0.5", "gradient_clip", 0.5),
        ("seed: 42", "seed", 42),
    ],
)
def test_training_keys(yaml, field, value):
    lines = f"  {yaml}\n" if field == "labels" else f"{TRAINING}  {yaml}\n"
    training = parse_strategy(changed((TRAINING, lines))).training
    labels = value if field == "labels" else ForwardReturnLabels()
    assert training == dataclasses.replace(TrainingConfig(labels), **{field: value})


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("{type: units, units: 5}", SizingConfig("units", units=5.0)),
        ("{type: cash, cash: 1000, lot_step: 0}", SizingConfig("cash", cash=1000.0, lot_step=0.0)),
        ("{fraction: 0.5}", SizingConfig("fraction", 0.5)),
    ],
)
def test_sizing_has_its_amount_under_the_types_name(yaml, expected):
    s = parse_strategy(f"{SMALL}backtest: {{sizing: {yaml}}}\n")
    assert s.backtest.sizing == expected


def test_dates():
    text = changed(
        ("timeframes: [1h]", "timeframes: [1h]\n  start_date: 2007-01-01\n  end_date: '2015-12-31'")
    )
    data = parse_strategy(text).training_data
    assert (data.start_date, data.end_date) == (date(2007, 1, 1), date(2015, 12, 31))
