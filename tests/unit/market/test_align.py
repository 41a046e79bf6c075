"""A higher bar is invisible before it is known."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.bars import Bars, parse_time
from ktrdr.market import align_to, can_resample, known_at, resample
from ktrdr.timeframe import Timeframe
from support.market_bars import any_bars, stamps, walk


def test_a_daily_bar_is_invisible_before_the_daily_close() -> None:
    hours = walk(stamps("XNYS", Timeframe.H1, 21, parse_time("2017-01-03")), Timeframe.H1, "XNYS")
    days = walk(np.array([parse_time("2017-01-03"), parse_time("2017-01-04")]), Timeframe.D1, "XNYS")
    # Seven hourly bars a day; the seventh ends with the session, and so does the daily bar.
    assert align_to(hours, days).tolist() == [-1] * 6 + [0] * 7 + [1] * 8


def test_a_gap_keeps_the_newest_known_row() -> None:
    hours = walk(np.arange(100, dtype=np.int64) * 3_600_000_000, Timeframe.H1, "24/7")
    days = walk(np.array([0, 2 * 86_400_000_000]), Timeframe.D1, "24/7")
    found = align_to(hours, days)
    assert found[:23].tolist() == [-1] * 23
    assert set(found[23:71]) == {0}
    assert set(found[71:]) == {1}
    assert found.dtype == np.int64


def test_a_row_older_than_the_limit_is_no_longer_the_newest_known() -> None:
    hours = walk(np.arange(100, dtype=np.int64) * 3_600_000_000, Timeframe.H1, "24/7")
    days = walk(np.array([0, 3 * 86_400_000_000]), Timeframe.D1, "24/7")
    found = align_to(hours, days, max_age=30 * 3_600_000_000)
    # The day is known at 24:00, with the bar of 23:00; 30 hours later it is exactly 30 hours old.
    assert found.tolist() == [-1] * 23 + [0] * 31 + [-1] * 41 + [1] * 5
    assert align_to(hours, days, max_age=10**15).tolist() == align_to(hours, days).tolist()
    assert align_to(hours, days[:0], max_age=1).tolist() == [-1] * 100


def test_without_higher_bars_nothing_is_known() -> None:
    hours = walk(np.arange(3, dtype=np.int64) * 3_600_000_000, Timeframe.H1, "24/7")
    assert align_to(hours, hours[:0]).tolist() == [-1, -1, -1]


@settings(max_examples=40, deadline=None)
@given(any_bars((Timeframe.M15, Timeframe.H1)), st.sampled_from((Timeframe.H4, Timeframe.D1, Timeframe.W1)))
def test_never_before_it_is_known_and_never_later_than_necessary(base: Bars, target: Timeframe) -> None:
    assert can_resample(base.calendar, base.timeframe, target)
    higher = resample(base, target)
    row, now, known = align_to(base, higher), known_at(base), known_at(higher)
    for t in range(len(base)):
        visible = np.flatnonzero(known <= now[t])
        assert row[t] == (visible[-1] if len(visible) else -1)


@settings(max_examples=30, deadline=None)
@given(any_bars((Timeframe.H1,)), st.data())
def test_what_was_visible_does_not_change_when_bars_are_appended(base: Bars, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(base)))
    early = align_to(base[:cut], resample(base[:cut], Timeframe.D1))
    late = align_to(base, resample(base, Timeframe.D1))
    assert early.tolist() == late[:cut].tolist()
