"""Rows to learn from: what became of every bar, joined by stamp and symbol, scaled by the training rows alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from ktrdr.bars import Bars, parse_time
from ktrdr.datasets.features import compute_features
from ktrdr.datasets.labels import make_labels
from ktrdr.errors import InvalidInput, TooFewBars
from ktrdr.jobs.learning_set import LearningSet, build_learning_set
from ktrdr.strategies import Strategy, parse_strategy, with_overrides
from ktrdr.timeframe import Timeframe

Drained = Callable[[Any], tuple[list[Any], Any]]
MakeBars = Callable[..., Bars]
D1, HOUR = Timeframe.D1, Timeframe.H1.microseconds


def built(strategy: Strategy, drained: Drained, *bars: Bars) -> LearningSet:
    market: dict[str, dict[Timeframe, Bars]] = {}
    for part in bars:
        market.setdefault(part.symbol, {})[part.timeframe] = part
    return drained(build_learning_set(strategy, market))[1]


def test_every_bar_is_accounted_for(strategy: Strategy, bars_of: MakeBars, drained: Drained) -> None:
    counts = asdict(built(strategy, drained, bars_of()).counts)
    assert counts.pop("bars") == 600 == sum(counts.values())
    assert counts["not_labelled"] == 4
    assert counts["before_start"] == 0
    assert min(counts["train"], counts["validation"], counts["test"], counts["embargoed"]) > 0
    assert counts["purged"] == 2 * 4


def test_bars_before_the_start_feed_the_warm_up_and_are_not_learned_from(
    strategy: Strategy, bars_of: MakeBars, drained: Drained
) -> None:
    bars = bars_of()
    start = bars[300:].start
    data = built(with_overrides(strategy, start_date=start), drained, bars)
    assert data.counts.before_start == 300
    assert data.counts.not_valid == 0
    assert data.pooled.time_N.min() == parse_time(start)
    whole = compute_features(data.plan, {D1: bars})
    row = int(data.pooled.feature_row_N[0]) + 300
    assert data.scaler is not None
    assert np.array_equal(data.x_NF[0], data.scaler.apply(whole.values_TF[row : row + 1])[0])


def test_nothing_after_the_end_is_looked_at(strategy: Strategy, bars_of: MakeBars, drained: Drained) -> None:
    bars = bars_of()
    ended = with_overrides(strategy, end_date=bars[:400].end)
    one = built(ended, drained, bars)
    assert one.counts.bars == 400
    assert one.pooled.end_time_N.max() <= bars.time[399]
    other_future = bars_of(seed=2)
    mixed = Bars(
        "AAA",
        D1,
        bars.time,
        *(
            np.concatenate([getattr(bars, c)[:400], getattr(other_future, c)[400:]])
            for c in ("open", "high", "low", "close", "volume")
        ),
    )
    again = built(ended, drained, mixed)
    assert np.array_equal(one.x_NF, again.x_NF)
    assert np.array_equal(one.pooled.y_N, again.pooled.y_N)


def test_two_symbols_are_paired_by_stamp_and_symbol(
    strategy: Strategy, bars_of: MakeBars, drained: Drained
) -> None:
    """BBB begins 50 days later and misses days: pairing by position would give other rows."""
    aaa, whole = bars_of("AAA"), bars_of("BBB", seed=2, first_day=11_050)
    keep = np.arange(600) % 7 != 3
    columns = (getattr(whole, c)[keep] for c in ("time", "open", "high", "low", "close", "volume"))
    bbb = Bars("BBB", D1, *columns)
    data = built(with_overrides(strategy, symbols=["AAA", "BBB"]), drained, aaa, bbb)
    assert data.scaler is not None
    for bars in (aaa, bbb):
        features = compute_features(data.plan, {D1: bars}, scaler=data.scaler)
        labels = make_labels(strategy.training.labels, bars)
        mine = data.pooled.symbol_N == data.pooled.symbols.index(bars.symbol)
        rows = np.searchsorted(bars.time, data.pooled.time_N[mine])
        assert np.array_equal(bars.time[rows], data.pooled.time_N[mine])
        assert np.array_equal(data.x_NF[mine], features.values_TF[rows])
        assert np.array_equal(data.pooled.y_N[mine], labels.y_T[rows])
        assert mine.sum() == np.count_nonzero(features.valid_T & labels.complete_T)
    split, time = data.split, data.pooled.time_N
    assert time[split.train].max() < time[split.validation].min() <= time[split.validation].max()
    assert time[split.validation].max() < time[split.test].min()


@pytest.mark.parametrize(
    ("start_row", "first_day"),
    [(300, 10_500), (None, 11_560)],
    ids=["its bars end before the start", "its bars begin after the training part"],
)
def test_a_symbol_that_gives_nothing_to_train_on_is_refused(
    strategy: Strategy, bars_of: MakeBars, drained: Drained, start_row: int | None, first_day: int
) -> None:
    """The model would say that it was trained on BBB and would never have seen it."""
    aaa, bbb = bars_of("AAA"), bars_of("BBB", seed=2, first_day=first_day, rows=250)
    both = with_overrides(
        strategy, symbols=["AAA", "BBB"], start_date=None if start_row is None else aaa[start_row:].start
    )
    with pytest.raises(
        TooFewBars, match=r"BBB gives no rows to train on: of its 250 bars .*leave the symbol out"
    ):
        built(both, drained, aaa, bbb)


def test_rows_are_told_by_symbol(strategy: Strategy, bars_of: MakeBars, drained: Drained) -> None:
    """BBB ends early: it has rows to train on and none to validate or test on."""
    aaa, bbb = bars_of("AAA"), bars_of("BBB", seed=2, rows=150)
    data = built(with_overrides(strategy, symbols=["AAA", "BBB"]), drained, aaa, bbb)
    by_symbol = data.rows_by_symbol()
    assert by_symbol["BBB"]["train"] > 50
    assert by_symbol["BBB"]["validation"] == by_symbol["BBB"]["test"] == 0
    for part in ("train", "validation", "test"):
        assert sum(rows[part] for rows in by_symbol.values()) == getattr(data.counts, part)


def test_the_scaler_has_seen_the_training_rows_alone(
    strategy: Strategy, bars_of: MakeBars, drained: Drained
) -> None:
    data = built(strategy, drained, bars_of())
    assert data.plan.names[-1] == "1d_roc_5"
    scaled = data.x_NF[data.split.train, -1]
    assert scaled.mean() == pytest.approx(0.0, abs=1e-5)
    assert scaled.std() == pytest.approx(1.0, abs=1e-5)
    assert abs(data.x_NF[:, -1].mean()) > 1e-4


def test_no_scaler_where_nothing_is_raw(strategy: Strategy, bars_of: MakeBars, drained: Drained) -> None:
    line = "  - {raw_indicator: roc_5, timeframes: all, normalization: zscore}\n"
    plain = parse_strategy(strategy.text.replace(line, "").replace("  roc_5: {type: roc, period: 5}\n", ""))
    assert built(plain, drained, bars_of()).scaler is None


def test_missing_bars_are_named(strategy: Strategy, bars_of: MakeBars, drained: Drained) -> None:
    with pytest.raises(InvalidInput, match=r"needs bars of AAA 1d; given: CCC 1d"):
        built(strategy, drained, bars_of("CCC"))


def test_too_few_bars_give_both_numbers(strategy: Strategy, bars_of: MakeBars, drained: Drained) -> None:
    with pytest.raises(TooFewBars) as caught:
        built(strategy, drained, bars_of(rows=20))
    assert "20 bars given" in str(caught.value)
    assert "warm-up" in str(caught.value)


def test_a_range_that_leaves_no_labelled_row_is_refused_with_the_counts(
    strategy: Strategy, bars_of: MakeBars, drained: Drained
) -> None:
    bars = bars_of()
    late = with_overrides(strategy, start_date=bars[598:].start)
    with pytest.raises(TooFewBars, match="2 no complete label"):
        built(late, drained, bars)


def test_an_end_before_the_first_bar_is_refused(
    strategy: Strategy, bars_of: MakeBars, drained: Drained
) -> None:
    with pytest.raises(TooFewBars, match="has no bars up to 1990-01-01"):
        built(with_overrides(strategy, end_date="1990-01-01"), drained, bars_of())


def test_a_day_that_is_complete_after_the_end_is_not_looked_at(
    strategy: Strategy, bars_of: MakeBars, drained: Drained
) -> None:
    """Days are stamped at 22:00: the last one that opens on the end date is complete only on the day after."""
    text = strategy.text.replace("timeframes: [1d]", "timeframes: [1h, 1d]")
    both = with_overrides(parse_strategy(text), end_date="2000-05-01")
    stamps = (11_000 * 24 + np.arange(24 * 100)) * HOUR
    hours = replace(bars_of(rows=24 * 100), timeframe=Timeframe.H1, time=stamps)
    days = replace(bars_of(rows=100, seed=2), time=stamps[22::24])
    used = built(both, drained, hours, days).bars_used["AAA"]
    assert used[Timeframe.H1].time[-1] == parse_time("2000-05-01T23:00Z")
    assert used[D1].time[-1] == parse_time("2000-04-30T22:00Z")
