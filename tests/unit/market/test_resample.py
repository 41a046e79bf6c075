"""Shorter bars into longer ones: hand calculations, clock changes, gaps, and the prefix law."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.bars import Bars, parse_time
from ktrdr.errors import InvalidInput
from ktrdr.market import can_resample, known_at, resample
from ktrdr.timeframe import Timeframe
from support.market_bars import MONDAY, any_bars, stamps, walk, with_quotes

HOUR = 3_600_000_000


def hours(calendar: str, *texts: str) -> Bars:
    return walk(np.array([parse_time(text) for text in texts]), Timeframe.H1, calendar)


def texts(bars: Bars) -> list[str]:
    return [str(np.datetime64(int(stamp), "us").astype("datetime64[m]")) for stamp in bars.time]


def test_open_first_high_highest_low_lowest_close_last_volume_summed() -> None:
    time = np.arange(6, dtype=np.int64) * HOUR + MONDAY
    bars = Bars(
        "X", Timeframe.H1, time,
        open=[10, 11, 12, 13, 14, 15], high=[12, 19, 13, 14, 16, 17], low=[9, 10, 8, 12, 13, 14],
        close=[11, 12, 13, 13.5, 15, 16], volume=[1, 2, 3, 4, 5, 6],
    )  # type: ignore[arg-type] # fmt: skip
    two = resample(bars, Timeframe.H2)
    assert two.open.tolist() == [10, 12, 14]
    assert two.high.tolist() == [19, 14, 17]
    assert two.low.tolist() == [9, 8, 13]
    assert two.close.tolist() == [12, 13.5, 16]
    assert two.volume.tolist() == [3, 7, 11]
    assert two.time.tolist() == time[::2].tolist()
    four = resample(bars, Timeframe.H4)
    assert (four.time.tolist(), four.volume.tolist()) == (
        [MONDAY],
        [10],
    )  # the second four hours are not over


def test_quotes_are_resampled_column_by_column() -> None:
    bars = with_quotes(walk(stamps("24/5", Timeframe.H1, 240), Timeframe.H1, "24/5"))
    days = resample(bars, Timeframe.D1)
    assert days.quotes is not None
    assert bars.quotes is not None
    first = (bars.time >= days.time[1]) & (bars.time < days.time[2])
    assert days.quotes.ask_high[1] == bars.quotes.ask_high[first].max()
    assert days.quotes.bid_low[1] == bars.quotes.bid_low[first].min()
    assert days.quotes.bid_open[1] == bars.quotes.bid_open[first][0]
    assert days.quotes.ask_close[1] == bars.quotes.ask_close[first][-1]


def test_a_forex_day_rolls_at_1700_new_york_through_the_clock_change() -> None:
    bars = walk(stamps("24/5", Timeframe.H1, 240, parse_time("2017-03-06")), Timeframe.H1, "24/5")
    assert texts(resample(bars, Timeframe.D1))[:10] == [
        "2017-03-05T22:00",  # what the data have of Monday: from midnight on
        "2017-03-06T22:00",
        "2017-03-07T22:00",
        "2017-03-08T22:00",
        "2017-03-09T22:00",
        "2017-03-12T21:00",  # summer time
        "2017-03-13T21:00",
        "2017-03-14T21:00",
        "2017-03-15T21:00",
        "2017-03-16T21:00",
    ]
    assert texts(resample(bars, Timeframe.W1)) == ["2017-03-05T22:00", "2017-03-12T21:00"]
    assert texts(resample(bars, Timeframe.H4))[-2:] == ["2017-03-17T13:00", "2017-03-17T17:00"]


def test_what_trades_on_a_forex_weekend_goes_into_monday() -> None:
    bars = hours("24/5", "2017-03-10T21:00Z", "2017-03-10T22:00Z", "2017-03-12T20:00Z", "2017-03-13T20:00Z")
    days = resample(bars, Timeframe.D1)
    assert texts(days) == ["2017-03-09T22:00", "2017-03-12T21:00"]
    assert days.volume[1] == pytest.approx(bars.volume[1:].sum())
    assert texts(resample(bars, Timeframe.W1)) == ["2017-03-05T22:00"]


def test_an_exchange_day_is_the_session_and_nothing_after_its_close() -> None:
    bars = hours(
        "XNYS",
        "2017-07-03T11:00Z",  # before the open
        "2017-07-03T13:00Z",
        "2017-07-03T16:00Z",
        "2017-07-03T17:00Z",  # after the early close of 3 July
        "2017-07-05T13:00Z",
        "2017-07-05T19:00Z",
        "2017-07-05T20:00Z",  # after the close
        "2017-07-06T19:00Z",
    )
    days = resample(bars, Timeframe.D1)
    assert texts(days) == ["2017-07-03T00:00", "2017-07-05T00:00", "2017-07-06T00:00"]
    assert days.close.tolist() == bars.close[[2, 5, 7]].tolist()
    assert days.open.tolist() == bars.open[[1, 4, 7]].tolist()


def test_a_bar_after_the_close_tells_that_the_day_is_over() -> None:
    bars = hours("XNYS", "2017-11-24T14:00Z", "2017-11-24T18:00Z")  # a half day, closed at 18:00
    assert texts(resample(bars, Timeframe.D1)) == ["2017-11-24T00:00"]
    assert len(resample(bars[:1], Timeframe.D1)) == 0


def test_a_clock_change_inside_a_period_does_not_split_it() -> None:
    night = [
        f"2017-03-12T{hour:02d}:00Z" for hour in range(5, 12)
    ]  # clocks go from 02:00 to 03:00 at 07:00 UTC
    bars = hours("XNYS", *night)
    four = resample(bars, Timeframe.H4)
    assert texts(four) == ["2017-03-12T05:00", "2017-03-12T08:00"]
    assert four.volume[0] == pytest.approx(bars.volume[:3].sum())


def test_exchange_weeks_are_stamped_with_their_monday() -> None:
    bars = walk(stamps("XNYS", Timeframe.D1, 12), Timeframe.D1, "XNYS")
    assert texts(resample(bars, Timeframe.W1)) == ["2017-01-02T00:00", "2017-01-09T00:00"]


def test_hours_that_start_at_half_past_make_periods_that_do() -> None:
    half = 30 * 60_000_000
    bars = walk(stamps("XNYS", Timeframe.H1, 14) + half, Timeframe.H1, "XNYS")
    four = resample(bars, Timeframe.H4)
    assert texts(four)[:2] == ["2017-01-02T13:30", "2017-01-02T17:30"]  # 08:30 and 12:30 in New York
    assert four.volume[0] == pytest.approx(bars.volume[:3].sum())


def test_dates_the_calendar_does_not_know_keep_their_bars() -> None:
    bars = hours("XTKS", "1850-01-02T01:00Z", "1850-01-02T02:00Z", "1850-01-04T16:00Z")
    assert texts(resample(bars, Timeframe.D1)) == ["1850-01-02T00:00"]


def test_gaps_stay_gaps() -> None:
    time = np.array([0, 1, 48, 49, 120]) * HOUR + MONDAY
    days = resample(walk(time, Timeframe.H1, "24/7"), Timeframe.D1)
    assert ((days.time - MONDAY) // HOUR).tolist() == [0, 48]


@pytest.mark.parametrize(
    ("calendar", "source", "target", "expected"),
    [
        ("24/7", "1h", "4h", True),
        ("24/7", "4h", "1h", False),
        ("24/7", "1h", "1h", False),
        ("24/7", "1d", "1w", True),
        ("24/5", "4h", "1d", False),
        ("24/5", "2h", "1w", False),
        ("24/5", "1h", "1d", True),
        ("24/5", "1d", "1w", True),
        ("24/5", "1h", "4h", True),
        ("XNYS", "4h", "1d", True),
    ],
)
def test_which_timeframes_can_be_made(calendar: str, source: str, target: str, expected: bool) -> None:
    assert can_resample(calendar, Timeframe(source), Timeframe(target)) is expected
    if not expected and source != target:
        bars = walk(stamps(calendar, Timeframe(source), 9), Timeframe(source), calendar)
        with pytest.raises(InvalidInput, match=rf"TEST {source} bars .* cannot be resampled to {target}"):
            resample(bars, Timeframe(target))


def test_the_own_timeframe_and_no_bars_at_all() -> None:
    bars = walk(stamps("XNYS", Timeframe.H1, 9), Timeframe.H1, "XNYS")
    assert resample(bars, Timeframe.H1) is bars
    assert len(resample(bars[:0], Timeframe.D1)) == 0
    assert len(resample(with_quotes(bars)[:1], Timeframe.D1)) == 0
    late = hours("XNYS", "2017-07-05T23:00Z")
    assert len(resample(late, Timeframe.D1)) == 0


@settings(max_examples=40, deadline=None)
@given(
    any_bars((Timeframe.M15, Timeframe.H1, Timeframe.D1)),
    st.sampled_from((Timeframe.H4, Timeframe.D1, Timeframe.W1)),
    st.data(),
)
def test_a_known_bar_never_changes_when_bars_are_appended(
    bars: Bars, target: Timeframe, data: st.DataObject
) -> None:
    if not can_resample(bars.calendar, bars.timeframe, target):
        return
    cut = data.draw(st.integers(1, len(bars)))
    before, after = resample(bars[:cut], target), resample(bars, target)
    assert len(before) <= len(after)
    assert before.digest() == after[: len(before)].digest()
    # and everything that is known at the cut is there already
    known = known_at(bars[cut - 1 : cut])[0]
    assert len(before) == int(np.searchsorted(known_at(after), known, side="right"))


@settings(max_examples=40, deadline=None)
@given(
    any_bars((Timeframe.M15, Timeframe.H1)),
    st.sampled_from((Timeframe.H2, Timeframe.H4, Timeframe.D1, Timeframe.W1)),
)
def test_each_bar_is_made_of_source_bars_that_were_known_with_it(bars: Bars, target: Timeframe) -> None:
    result = resample(bars, target)
    known, source_known = known_at(result), known_at(bars)
    edges = np.concatenate(([-(2**62)], known))
    for row in range(len(result)):
        inside = (source_known <= known[row]) & (source_known > edges[row])
        assert inside.any()  # nothing is invented
        assert set(result.close[row : row + 1]) <= set(bars.close[inside])
        assert result.high[row] <= bars.high[inside].max()
    for field in fields(bars):
        if field.name in ("symbol", "calendar"):
            assert getattr(result, field.name) == getattr(bars, field.name)
