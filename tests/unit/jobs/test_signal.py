"""The newest bar's signal is the one that a backtest would have acted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.errors import InvalidInput, InvalidModel, TooFewBars
from ktrdr.jobs.asking import answer_bars, plan_for
from ktrdr.jobs.signal import latest_signal
from ktrdr.models.bundle import save_bundle
from ktrdr.models.decision import ACTIONS
from ktrdr.models.inference import BLOCK_ROWS
from ktrdr.strategies import Strategy, parse_strategy
from ktrdr.timeframe import Timeframe

Drained = Callable[[Any], tuple[list[Any], Any]]
D1 = Timeframe.D1


def test_it_is_what_a_backtest_sees_at_every_bar(
    trained: Any, strategy: Strategy, bars_of: Callable[..., Bars], drained: Drained
) -> None:
    bars = bars_of()
    plan = plan_for(trained.bundle, strategy)
    answers = drained(answer_bars(trained.bundle, plan, {D1: bars}, threshold=0.0))[1]
    for row in (200, 333, 599):
        signal = latest_signal(trained.bundle, {D1: bars[: row + 1]})
        assert signal.action == ACTIONS[int(answers.decisions.signal_T[row])]
        assert signal.confidence == answers.decisions.confidence_T[row]
        assert list(signal.probabilities.values()) == answers.probabilities_TC[row].astype(float).tolist()
        assert list(signal.inputs.values()) == answers.features.values_TF[row].astype(float).tolist()


def test_it_says_which_bar_and_why(trained: Any, bars_of: Callable[..., Bars]) -> None:
    bars = bars_of()
    signal = latest_signal(trained.bundle, {D1: bars})
    assert (signal.symbol, signal.timeframe) == ("AAA", "1d")
    assert signal.time == bars.end.isoformat()
    assert signal.known_at > signal.time
    assert signal.close == bars.close[-1]
    assert set(signal.inputs) == {"1d_momentum_low", "1d_momentum_high", "1d_roc_5"}
    assert sum(signal.probabilities.values()) == pytest.approx(1.0)
    assert signal.to_json()["action"] in ("BUY", "HOLD", "SELL")


def test_too_little_history_is_said_with_both_numbers(trained: Any, bars_of: Callable[..., Bars]) -> None:
    with pytest.raises(TooFewBars, match="10 bars given"):
        latest_signal(trained.bundle, {D1: bars_of()[:10]})


def test_a_missing_timeframe_is_named(trained: Any, bars_of: Callable[..., Bars]) -> None:
    with pytest.raises(InvalidInput, match="1d"):
        latest_signal(trained.bundle, {Timeframe.H1: bars_of()})


def test_where_asking_begins_changes_no_answer(
    trained: Any, strategy: Strategy, bars_of: Callable[..., Bars], drained: Drained
) -> None:
    bars = bars_of(rows=2 * BLOCK_ROWS)
    plan = plan_for(trained.bundle, strategy)
    whole = drained(answer_bars(trained.bundle, plan, {D1: bars}, threshold=0.4))[1]
    first = BLOCK_ROWS + 100
    late = drained(answer_bars(trained.bundle, plan, {D1: bars}, threshold=0.4, first=first))[1]
    assert np.array_equal(whole.probabilities_TC[first:], late.probabilities_TC[first:])
    assert np.array_equal(whole.decisions.signal_T[first:], late.decisions.signal_T[first:])
    assert not late.decisions.signal_T[:first].any()
    assert np.isnan(late.probabilities_TC[:first]).all()


def telling_the_place(content: bytes) -> bytes:
    """The same network, with logits that also depend on the row's place in its block."""
    model = onnx.load_from_string(content)
    softmax = model.graph.node[-1]
    offset = np.random.default_rng(1).normal(size=(BLOCK_ROWS, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(offset, "offset"))
    model.graph.node.insert(
        len(model.graph.node) - 1, onnx.helper.make_node("Add", [softmax.input[0], "offset"], ["placed"])
    )
    model.graph.node[-1].input[0] = "placed"
    return model.SerializeToString()


def test_a_bar_has_the_same_place_in_its_block_wherever_asking_begins(
    trained: Any,
    strategy: Strategy,
    bars_of: Callable[..., Bars],
    drained: Drained,
    store: FileArtifactStore,
) -> None:
    placed = telling_the_place(trained.bundle.model_path().read_bytes())
    bundle = save_bundle(store, trained.bundle.manifest, model=placed, weights={})
    bars, plan = bars_of(rows=BLOCK_ROWS + 500), plan_for(bundle, strategy)
    whole = drained(answer_bars(bundle, plan, {D1: bars}, threshold=0.0))[1]
    for first in (300, BLOCK_ROWS + 100):
        late = drained(answer_bars(bundle, plan, {D1: bars}, threshold=0.0, first=first))[1]
        assert np.array_equal(whole.probabilities_TC[first:], late.probabilities_TC[first:])
    assert (
        list(latest_signal(bundle, {D1: bars}).probabilities.values()) == whole.probabilities_TC[-1].tolist()
    )


def test_a_sum_since_the_first_bar_needs_the_same_first_bar(
    strategy: Strategy, bars_of: Callable[..., Bars], drained: Drained, store: FileArtifactStore
) -> None:
    """On-balance volume never forgets where it began: from another bar on, the same numbers mean something else."""
    from ktrdr.jobs.train import train_model

    text = strategy.text.replace("roc_5: {type: roc, period: 5}", "roc_5: {type: obv}")
    bars = bars_of()
    bundle = drained(train_model(parse_strategy(text), {"AAA": {D1: bars}}, store, device="cpu"))[1].bundle
    assert latest_signal(bundle, {D1: bars}).action in ("BUY", "HOLD", "SELL")
    with pytest.raises(InvalidModel, match=r"obv.*AAA 1d.*first bar.*2000-02-13.*these begin at 2000-02-23"):
        latest_signal(bundle, {D1: bars[10:]})
    assert latest_signal(bundle, {D1: bars_of("BBB")[10:]}).symbol == "BBB"
