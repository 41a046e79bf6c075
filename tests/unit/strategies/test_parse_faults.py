"""Faults of strategy documents: where each lies and what is said of it."""

from __future__ import annotations

import dataclasses

import pytest

from ktrdr.errors import InvalidStrategy
from ktrdr.indicators import catalog
from ktrdr.strategies import parse_strategy
from support.small_strategy import SMALL, TRAINING, changed, faults_of


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
