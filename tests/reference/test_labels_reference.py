"""Labels against their definitions, written down naively, and against sums done by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.bars import Bars
from ktrdr.datasets import labels_kernels as kernels
from ktrdr.datasets.labels import BUY, HOLD, NO_LABEL, SELL, make_labels
from ktrdr.indicators import compute
from ktrdr.strategies.document import ForwardReturnLabels, TripleBarrierLabels, ZigzagLabels
from ktrdr.timeframe import Timeframe

DAY = 86_400_000_000


def bars_of(open_, high, low, close) -> Bars:
    rows = len(open_)
    return Bars("X", Timeframe.D1, np.arange(rows) * DAY, open_, high, low, close, np.ones(rows))


def walk(seed: int, rows: int, step: float = 0.02) -> Bars:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, step, rows)))
    open_ = np.roll(close, 1) * np.exp(rng.normal(0, step / 2, rows))
    open_[:1] = 100.0
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, step / 2, rows)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, step / 2, rows)))
    return bars_of(open_, high, low, close)


# -- naive definitions ------------------------------------------------------------------------------------------


def forward_return_by_definition(bars: Bars, config: ForwardReturnLabels):
    """Buy at the next open, sell at the open h bars later."""
    out = []
    for t in range(len(bars)):
        exit_row = t + 1 + config.horizon_bars
        if exit_row >= len(bars):
            out.append((NO_LABEL, NO_LABEL))
            continue
        gain = bars.open[exit_row] / bars.open[t + 1] - 1
        label = BUY if gain > config.threshold else SELL if gain < -config.threshold else HOLD
        out.append((label, exit_row))
    return out


def triple_barrier_by_definition(bars: Bars, config: TripleBarrierLabels):
    """First touch, found by listing all events of each barrier and comparing their order."""
    atr = compute("atr", bars, period=config.atr_period)["atr"]
    out = []
    for t in range(len(bars)):
        if t + 1 >= len(bars) or not atr[t] > 0:
            out.append((NO_LABEL, NO_LABEL))
            continue
        entry = bars.open[t + 1]
        upper, lower = entry + config.profit_target_atr * atr[t], entry - config.stop_loss_atr * atr[t]
        last = t + 1 + config.max_holding_bars
        events = []  # (row, moment inside the bar, label)
        for row in range(t + 1, min(last, len(bars))):
            if bars.open[row] >= upper:
                events.append((row, 0, BUY))
            if bars.open[row] <= lower:
                events.append((row, 0, SELL))
            if bars.low[row] <= lower:
                events.append((row, 1, SELL))
            if bars.high[row] >= upper:
                events.append((row, 2, BUY))
        if events:
            row, _, label = min(events)
            out.append((label, row))
        else:
            out.append((HOLD, last) if last < len(bars) else (NO_LABEL, NO_LABEL))
    return out


def zigzag_by_definition(bars: Bars, config: ZigzagLabels):
    """Confirmed pivots found prefix by prefix: each prefix is searched afresh from its last pivot."""
    close = bars.close
    pivots: list[tuple[int, int, int]] = []  # (row, row that confirms it, +1 top or -1 bottom)
    for now in range(1, len(bars)):
        start = pivots[-1][1] if pivots else 0
        wanted = (-pivots[-1][2],) if pivots else (1, -1)
        leg = close[start : now + 1]
        for kind in wanted:
            extreme = start + int(np.argmax(kind * leg))
            reversed_ = close[now] <= close[extreme] * (1 - config.threshold)
            if kind < 0:
                reversed_ = close[now] >= close[extreme] * (1 + config.threshold)
            if reversed_:
                pivots.append((extreme, now, kind))
                break
    out = [(NO_LABEL, NO_LABEL)] * len(bars)
    for (opened, _, _), (closed, confirmed, kind) in pairwise(pivots):
        for t in range(opened, closed):
            gain = kind * (close[closed] / bars.open[t + 1] - 1)
            out[t] = (HOLD if gain <= config.min_move else BUY if kind > 0 else SELL, confirmed)
    return out


DEFINITIONS = {
    ForwardReturnLabels: forward_return_by_definition,
    TripleBarrierLabels: triple_barrier_by_definition,
    ZigzagLabels: zigzag_by_definition,
}

configs = st.one_of(
    st.builds(ForwardReturnLabels, st.integers(1, 12), st.sampled_from([0.0, 0.01, 0.05])),
    st.builds(
        TripleBarrierLabels,
        st.sampled_from([0.5, 1.0, 2.5]),
        st.sampled_from([0.5, 1.0, 2.5]),
        st.integers(1, 15),
        st.integers(1, 10),
    ),
    st.builds(ZigzagLabels, st.sampled_from([0.01, 0.04, 0.1]), st.sampled_from([0.0, 0.02])),
)


@settings(max_examples=60, deadline=None)
@given(config=configs, seed=st.integers(0, 10_000), rows=st.integers(0, 120))
def test_labels_equal_their_definition(config, seed, rows):
    bars = walk(seed, rows)
    labels = make_labels(config, bars)
    told = list(zip(labels.y_T.tolist(), labels.t1_T.tolist(), strict=True))
    assert told == DEFINITIONS[type(config)](bars, config)


@settings(max_examples=40, deadline=None)
@given(config=configs, seed=st.integers(0, 10_000), rows=st.integers(2, 120), share=st.floats(0.1, 1.0))
def test_prefix_law_a_label_that_has_ended_never_changes(config, seed, rows, share):
    bars = walk(seed, rows)
    known = max(1, int(rows * share))
    early, late = make_labels(config, bars[:known]), make_labels(config, bars)
    done = late.complete_T[:known] & (late.t1_T[:known] < known)
    np.testing.assert_array_equal(early.complete_T, done)
    np.testing.assert_array_equal(early.y_T[done], late.y_T[:known][done])
    np.testing.assert_array_equal(early.t1_T[done], late.t1_T[:known][done])


@settings(max_examples=40, deadline=None)
@given(config=configs, seed=st.integers(0, 10_000), rows=st.integers(2, 120))
def test_the_future_beyond_t1_does_not_matter(config, seed, rows):
    bars = walk(seed, rows)
    labels = make_labels(config, bars)
    for t in np.flatnonzero(labels.complete_T)[::17]:
        end = int(labels.t1_T[t]) + 1
        other = walk(seed + 1, rows - end + 1)
        stitched = bars_of(
            *(
                np.concatenate([getattr(bars, name)[:end], getattr(other, name)[1:]])
                for name in ("open", "high", "low", "close")
            )
        )
        changed = make_labels(config, stitched)
        assert (changed.y_T[t], changed.t1_T[t]) == (labels.y_T[t], labels.t1_T[t])


@pytest.mark.parametrize("name", sorted(kernels.plain))
@pytest.mark.parametrize("seed", range(3))
def test_compiled_equals_plain_python(name, seed):
    bars = walk(seed, 400)
    atr = np.ascontiguousarray(compute("atr", bars, period=5)["atr"])
    arguments = {
        "forward_return": (bars.open, 7, 0.01),
        "triple_barrier": (bars.open, bars.high, bars.low, atr, 1.5, 1.0, 9),
        "zigzag": (bars.open, bars.close, 0.04, 0.01),
    }[name]
    results = []
    for function in (kernels.plain[name], getattr(kernels, name)):
        y, t1 = np.full(len(bars), -1, np.int8), np.full(len(bars), -1, np.int64)
        function(*arguments, y, t1)
        results.append((y, t1))
    assert np.count_nonzero(results[0][0] >= 0) > 300
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


# -- by hand ----------------------------------------------------------------------------------------------------


def test_forward_return_by_hand():
    # Decided at the close of bar 0, bought at 100 (bar 1), sold at 110 (bar 3): +10 %.
    open_ = np.array([90.0, 100.0, 100.0, 110.0, 99.0, 99.0])
    labels = make_labels(ForwardReturnLabels(2, 0.05), bars_of(open_, open_, open_, open_))
    #  t=0: 110/100  t=1: 99/100 = -1 %  t=2: 99/110 = -10 %  t=3..: too late to know
    assert labels.y_T.tolist() == [BUY, HOLD, SELL, -1, -1, -1]
    assert labels.t1_T.tolist() == [3, 4, 5, -1, -1, -1]


def flat_then(rows: list[tuple[float, float, float, float]]) -> Bars:
    """Two bars of true range 2 around 100 (ATR of period 1 is 2 at row 1), then the given bars."""
    table = np.array([(100.0, 101.0, 99.0, 100.0)] * 2 + rows)
    return bars_of(*table.T)


BARRIERS = TripleBarrierLabels(profit_target_atr=2, stop_loss_atr=1, max_holding_bars=2, atr_period=1)
# At row 1: entry at the open of row 2 (100), upper barrier 104, lower barrier 98, time-out at the open of row 4.


@pytest.mark.parametrize(
    ("name", "rows", "label", "t1"),
    [
        ("target", [(100, 101, 99, 100), (100, 104, 99, 103), (100, 100, 100, 100)], BUY, 3),
        ("target on the entry bar", [(100, 104, 99, 100), (100, 100, 100, 100)], BUY, 2),
        ("stop", [(100, 101, 99, 100), (100, 101, 98, 99), (100, 100, 100, 100)], SELL, 3),
        ("both in one bar: stop first", [(100, 105, 97, 100), (100, 100, 100, 100)], SELL, 2),
        (
            "both, but the open was beyond the target",
            [(100, 101, 99, 100), (105, 106, 97, 98), (98, 98, 98, 98)],
            BUY,
            3,
        ),
        ("gap through the stop", [(100, 101, 99, 100), (97, 105, 96, 104), (98, 98, 98, 98)], SELL, 3),
        ("time-out", [(100, 103, 99, 100), (100, 103, 99, 100), (100, 110, 90, 100)], HOLD, 4),
        ("time-out not reached", [(100, 103, 99, 100), (100, 103, 99, 100)], -1, -1),
    ],
)
def test_triple_barrier_by_hand(name, rows, label, t1):
    labels = make_labels(BARRIERS, flat_then(rows))
    assert (int(labels.y_T[1]), int(labels.t1_T[1])) == (label, t1)


def test_no_barriers_without_an_atr():
    still = np.full(12, 100.0)
    labels = make_labels(BARRIERS, bars_of(still, still, still, still))
    assert not labels.complete_T.any()
    assert not make_labels(TripleBarrierLabels(atr_period=5), walk(0, 40)).complete_T[:5].any()


def test_zigzag_by_hand():
    #                  0    1    2    3     4    5    6    7    8     9
    close = np.array([100, 95, 90.5, 100, 110, 108, 98, 92, 101.2, 120])
    # 10 %: no top at 0 (it would take 90); bottom at 2 (90.5) confirmed by 3 (100 > 99.55); top at 4 (110) confirmed by 6 (98); bottom at 7 (92) confirmed by 8.
    open_ = close.copy()
    labels = make_labels(ZigzagLabels(0.1, 0.0), bars_of(open_, close, close, close))
    #  rows 0, 1: before the first pivot. 2, 3: rising leg; at 3 the next open IS the pivot's price: nothing left.
    #  4, 5, 6: falling leg; at 6 nothing is left. 7, 8, 9: the leg has not ended.
    assert labels.y_T.tolist() == [-1, -1, BUY, HOLD, SELL, SELL, HOLD, -1, -1, -1]
    assert labels.t1_T.tolist() == [-1, -1, 6, 6, 8, 8, 8, -1, -1, -1]


def test_zigzag_holds_where_little_is_left():
    close = np.array([100, 90, 99.0, 109, 110, 98])
    labels = make_labels(ZigzagLabels(0.1, 0.05), bars_of(close, close, close, close))
    # From 99 (row 1's fill) 11 % are left, from 109 (row 2's fill) 0.9 %.
    assert labels.y_T.tolist()[1:4] == [BUY, HOLD, HOLD]
