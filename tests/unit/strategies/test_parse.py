"""Parsing: the whole document becomes frozen objects, or every fault is told with its place."""

from __future__ import annotations

import dataclasses
from datetime import date

import pytest

from ktrdr.errors import InvalidStrategy
from ktrdr.fuzzy import membership
from ktrdr.indicators import catalog
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


# -- what a valid document becomes -------------------------------------------------------------------------------


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


TRAINING = "  labels: {source: forward_return}\n"


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


# -- faults ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "section",
    ["name", "version", "training_data", "indicators", "fuzzy_sets", "nn_inputs", "model", "training"],
)
def test_each_missing_section_is_named(section):
    lines = SMALL.splitlines(keepends=True)
    begin = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
    end = next((i for i in range(begin + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    assert faults_of("".join(lines[:begin] + lines[end:])) == [
        (f"/{section}", f"missing required field '{section}'")
    ]


@pytest.mark.parametrize(
    ("old", "new", "pointer", "message"),
    [
        (
            "indicators:\n",
            "indicatorz:\n",
            "/indicatorz",
            "unknown key 'indicatorz'; did you mean 'indicators'?",
        ),
        ("period: 14", "perriod: 14", "/indicators/rsi_14/perriod", "did you mean 'period'?"),
        ("period: 14", "period: 1", "/indicators/rsi_14/period", "1 is not accepted"),
        ("type: rsi", "type: rsy", "/indicators/rsi_14/type", "no indicator 'rsy'; did you mean 'rsi'?"),
        ("type: rsi, ", "", "/indicators/rsi_14/type", "missing required field 'type'"),
        ("{type: rsi, period: 14}", "rsi", "/indicators/rsi_14", "must be a mapping such as"),
        (
            "macd: {type: macd}",
            "macd: {type: macd, slow: 5}",
            "/indicators/macd",
            "fast: fast must be smaller than slow",
        ),
        ("macd: {type: macd}", "2fast: {type: macd}", "/indicators/2fast", "'2fast' is not a possible name"),
        (
            "indicator: rsi_14",
            "indicator: rsi_15",
            "/fuzzy_sets/momentum/indicator",
            "did you mean 'rsi_14'?",
        ),
        ("indicator: rsi_14", "indicator: macd.histo", "/fuzzy_sets/momentum/indicator", "no output 'histo'"),
        ("indicator: rsi_14", "indicator: a.b.c", "/fuzzy_sets/momentum/indicator", "not possible here"),
        (
            "    indicator: rsi_14\n",
            "",
            "/fuzzy_sets/momentum/indicator",
            "missing required field 'indicator'",
        ),
        ("low: [0, 20, 40]", "low: [0, 20]", "/fuzzy_sets/momentum/low", "3 points"),
        ("low: [0, 20, 40]", "low: 20", "/fuzzy_sets/momentum/low", "must be 3 numbers"),
        ("low: [0, 20, 40]", "low: {type: gausian}", "/fuzzy_sets/momentum/low/type", "'gausian'"),
        ("low: [0, 20, 40]", "low: {type: gaussian, mean: 1}", "/fuzzy_sets/momentum/low", "sigma"),
        ("low: [0, 20, 40]", "'a b': [0, 20, 40]", "/fuzzy_sets/momentum/a b", "not possible here"),
        ("fuzzy_set: momentum", "fuzzy_set: momentun", "/nn_inputs/0/fuzzy_set", "did you mean 'momentum'?"),
        ("fuzzy_set: momentum", "raw_indicator: atr_1", "/nn_inputs/0/raw_indicator", "no indicator 'atr_1'"),
        ("fuzzy_set: momentum", "fuzy_set: momentum", "/nn_inputs/0/fuzy_set", "did you mean 'fuzzy_set'?"),
        (
            "fuzzy_set: momentum",
            "raw_indicator: rsi_14, normalization: z",
            "/nn_inputs/0/normalization",
            "zscore, minmax, none",
        ),
        (
            "{fuzzy_set: momentum}",
            "{fuzzy_set: momentum, timeframes: [1d]}",
            "/nn_inputs/0/timeframes/0",
            "timeframe '1d' is not in training_data.timeframes (1h)",
        ),
        (
            "{fuzzy_set: momentum}",
            "{fuzzy_set: momentum, timeframes: 4h}",
            "/nn_inputs/0/timeframes",
            "timeframe '4h' is not in training_data.timeframes (1h)",
        ),
        (
            "- {fuzzy_set: momentum}",
            "- {fuzzy_set: momentum}\n  - {fuzzy_set: momentum, timeframes: 1h}",
            "/nn_inputs/1",
            "the same on 1h is already input 0",
        ),
        ("- {fuzzy_set: momentum}", "[]", "/nn_inputs", "must have 1 to 1000 entries, got 0"),
        (
            "- {fuzzy_set: momentum}",
            "- momentum",
            "/nn_inputs/0",
            "must be a mapping of keys, got 'momentum'",
        ),
        ("[EURUSD]", "[]", "/training_data/symbols", "got 0"),
        ("[EURUSD]", "[A, B, A]", "/training_data/symbols/2", "'A' is listed twice"),
        ("[EURUSD]", "[../etc]", "/training_data/symbols/0", "'../etc' is not possible here"),
        ("[EURUSD]", "null", "/training_data/symbols", "must be text, got 'null'"),
        ("[EURUSD]", "{mode: many, list: [A]}", "/training_data/symbols/mode", "single, multi_symbol"),
        ("[EURUSD]", "{list: [A]}", "/training_data/symbols/mode", "missing required field 'mode'"),
        ("[1h]", "[1h, 1h]", "/training_data/timeframes/1", "listed twice"),
        ("[1h]", "[1H]", "/training_data/timeframes/0", "did you mean '1h'?"),
        ("[1h]", "[[1h]]", "/training_data/timeframes/0", "Unknown timeframe 'a list'"),
        (
            "[1h]",
            "{mode: multi_timeframe, list: [1h], base_timeframe: 1d}",
            "/training_data/timeframes/base_timeframe",
            "'1d' is not one of list (1h)",
        ),
        (
            "timeframes: [1h]",
            "timeframes: [1h]\n  start_date: 2015-02-30",
            "/training_data/start_date",
            "not a date",
        ),
        (
            "timeframes: [1h]",
            "timeframes: [1h]\n  start_date: soon",
            "/training_data/start_date",
            "2015-01-31",
        ),
        (
            "timeframes: [1h]",
            "timeframes: [1h]\n  start_date: 2016-01-01\n  end_date: 2015-01-01",
            "/training_data/end_date",
            "2015-01-01 is not after start_date 2016-01-01",
        ),
        ('version: "3.0"', "version: 2", "/version", "must be 3.0, got '2'"),
        ("name: small", "name: a/b", "/name", "'a/b' is not possible here"),
        ("name: small", "name: [a]", "/name", "must be text, got a list"),
        ("{type: mlp}", "{type: lstm}", "/model/type", "must be mlp, got 'lstm'"),
        ("{type: mlp}", "mlp", "/model", "must be a mapping of keys, got 'mlp'"),
        (
            "{type: mlp}",
            "{type: mlp, architecture: {hidden_layers: [8, x]}}",
            "/model/architecture/hidden_layers/1",
            "must be a whole number >= 1 and <= 4,096, got 'x'",
        ),
        (
            "{type: mlp}",
            "{type: mlp, architecture: {hidden_layers: 8}}",
            "/model/architecture/hidden_layers",
            "must be a list, got '8'",
        ),
        (
            "{type: mlp}",
            "{type: mlp, architecture: {dropout: 1}}",
            "/model/architecture/dropout",
            "must be a number >= 0 and < 1, got '1'",
        ),
        (
            "forward_return",
            "trend_scanning",
            "/training/labels/source",
            "zigzag, triple_barrier, forward_return",
        ),
        (
            "source: forward_return",
            "",
            "/training/labels/source",
            "missing required field 'source': one of zigzag",
        ),
        (
            "{source: forward_return}",
            "{source: forward_return, horizon_bars: 1.5}",
            "/training/labels/horizon_bars",
            "must be a whole number",
        ),
        (
            "{source: forward_return}",
            "{source: forward_return, atr_period: 5}",
            "/training/labels/atr_period",
            "unknown key 'atr_period'",
        ),
        ("{source: forward_return}", "forward_return", "/training/labels", "must be a mapping of keys"),
    ],
)
def test_each_fault_has_its_pointer_and_message(old, new, pointer, message):
    found = faults_of(changed((old, new)))
    assert (pointer, True) in [(where, message in said) for where, said in found], found


@pytest.mark.parametrize(
    ("yaml", "pointer", "message"),
    [
        ("data_split: {train: 0.8}", "/training/data_split/train", "add up to 1.1, not 1"),
        ("epochs: 0", "/training/epochs", "must be a whole number >= 1"),
        ("epochs: true", "/training/epochs", "got 'true'"),
        ("batch_size:", "/training/batch_size", "got nothing"),
        ("optimizer: {momentum: 0.9}", "/training/optimizer/momentum", "unknown key 'momentum'"),
        ("optimizer: {learning_rate: .inf}", "/training/optimizer/learning_rate", "must be a number > 0"),
        ("optimizer: {learning_rate: .nan}", "/training/optimizer/learning_rate", "must be a number > 0"),
        ("scheduler: {type: cosine}", "/training/scheduler/type", "none, reduce_on_plateau, step"),
        ("early_stopping: {monitor: train_loss}", "/training/early_stopping/monitor", "val_loss"),
        ("loss: {max_class_weight: 3}", "/training/loss/max_class_weight", "unknown key"),
        ("seed: -1", "/training/seed", "must be a whole number >= 0"),
    ],
)
def test_faults_of_training_keys(yaml, pointer, message):
    found = faults_of(changed((TRAINING, f"{TRAINING}  {yaml}\n")))
    assert len(found) == 1
    assert found[0][0] == pointer
    assert message in found[0][1]


@pytest.mark.parametrize(
    ("yaml", "pointer", "message"),
    [
        ("decisions: {confidence_threshold: 2}", "/decisions/confidence_threshold", "<= 1"),
        (
            "decisions: {position_awareness: yes}",
            "/decisions/position_awareness",
            "must be true or false, got 'yes'",
        ),
        ("decisions: {output_format: regression}", "/decisions/output_format", "must be classification"),
        ("backtest: {initial_capital: 0}", "/backtest/initial_capital", "> 0"),
        ("backtest: {sizing: {type: units}}", "/backtest/sizing/units", "missing required field 'units'"),
        ("backtest: {sizing: {type: kelly}}", "/backtest/sizing/type", "fraction, units, cash, risk"),
        ("backtest: {sizing: {type: risk, risk: 0.01}}", "/backtest/sizing", "needs a stop"),
        ("backtest: {costs: {comission: 0.1}}", "/backtest/costs/comission", "did you mean 'commission'?"),
        (
            "backtest: {costs: {slippage: 0.1, slippage_bps: 1}}",
            "/backtest/costs/slippage_bps",
            "cannot be combined",
        ),
        ("backtest: {stops: {stop_loss: 1}}", "/backtest/stops/stop_loss", "< 1"),
        ("backtest: {fill: this_close}", "/backtest/fill", "must be next_open"),
    ],
)
def test_faults_of_trading_keys(yaml, pointer, message):
    found = faults_of(f"{SMALL}{yaml}\n")
    assert len(found) == 1
    assert found[0][0] == pointer
    assert message in found[0][1]


def test_risk_sizing_is_fine_with_a_stop():
    s = parse_strategy(
        f"{SMALL}backtest: {{sizing: {{type: risk, risk: 0.01}}, stops: {{trailing_stop: 0.1}}}}\n"
    )
    assert s.backtest.sizing.risk == 0.01


def test_all_faults_are_told_in_the_order_of_the_lines():
    text = changed(
        ("[1h]", "[1x]"), ("period: 14", "perid: 14"), ("{type: mlp}", "{type: mlb}"), ("small", "sm all")
    )
    with pytest.raises(InvalidStrategy) as caught:
        parse_strategy(text, source="my.yaml")
    lines = [error.line for error in caught.value.errors]
    assert lines == sorted(lines)
    assert [e.pointer for e in caught.value.errors] == [
        "/name",
        "/training_data/timeframes/0",
        "/indicators/rsi_14/perid",
        "/model/type",
    ]
    assert str(caught.value).startswith("my.yaml: the strategy has 4 faults\n  line 1, column 7: /name: ")


def test_one_mistake_in_an_indicator_gives_one_fault():
    assert len(faults_of(changed(("type: rsi", "type: rsy")))) == 1


def test_one_misspelt_section_does_not_blame_its_users():
    pointers = [pointer for pointer, _ in faults_of(changed(("fuzzy_sets:", "fuzzy_setz:")))]
    assert pointers == ["/fuzzy_sets", "/fuzzy_setz"]


@pytest.mark.parametrize("text", ["[1, 2]", "just text", "42"])
def test_a_document_that_is_no_mapping(text):
    assert faults_of(text)[0][1].startswith("must be a mapping of keys, got")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("indicators", "must be a mapping of names, got a list"),
        ("fuzzy_sets", "must be a mapping of names, got a list"),
    ],
)
def test_a_list_where_names_belong(section, message):
    lines = SMALL.splitlines()
    begin = lines.index(f"{section}:")
    end = next(i for i in range(begin + 1, len(lines)) if not lines[i].startswith(" "))
    text = "\n".join([*lines[:begin], f"{section}: [1]", *lines[end:]])
    assert (f"/{section}", message) in faults_of(text)


def test_a_fuzzy_set_is_a_mapping_with_labels():
    text = changed(("    indicator: rsi_14\n    low: [0, 20, 40]\n    high: [60, 80, 100]\n", "    []\n"))
    assert ("/fuzzy_sets/momentum", "must be a mapping of `indicator` and labels, got a list") in faults_of(
        text
    )
    text = changed(("    low: [0, 20, 40]\n    high: [60, 80, 100]\n", ""))
    assert faults_of(text)[0][1].startswith("names no membership function")


def test_no_indicators_at_all():
    text = changed(("  rsi_14: {type: rsi, period: 14}\n  macd: {type: macd}\n", "  {}\n"))
    found = faults_of(text)
    assert ("/indicators", "must have 1 to 500 entries, got 0") in found
    assert any("no indicator 'rsi_14' in this document. indicators is empty." in said for _, said in found)


def test_an_indicator_that_repaints_is_refused():
    repainting = dataclasses.replace(catalog()["rsi"], repaints=True)
    with pytest.raises(InvalidStrategy) as caught:
        parse_strategy(SMALL, catalog={**catalog(), "rsi": repainting})
    (fault,) = caught.value.errors
    assert fault.pointer == "/indicators/rsi_14/type"
    assert "repaints" in fault.message


def test_yaml_faults_name_the_source():
    with pytest.raises(InvalidStrategy, match=r"my\.yaml: The document is not YAML"):
        parse_strategy("a: [", source="my.yaml")
