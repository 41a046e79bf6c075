"""What may be true is reported and never refused; and the calendar is told from the stamps."""

from dataclasses import replace

import numpy as np
import pytest

from ktrdr.bars import Bars, parse_time
from ktrdr.market.grid import infer_calendar
from ktrdr.market.report import Finding
from ktrdr.market.suspicions import suspicions
from ktrdr.timeframe import Timeframe
from support.market_bars import stamps, walk, with_quotes

HOUR = 3_600_000_000


def found(bars: Bars) -> dict[str, Finding]:
    return {finding.code: finding for finding in suspicions(bars)}


def without(bars: Bars, *rows: int) -> Bars:
    keep = np.delete(np.arange(len(bars)), rows)
    columns = {name: getattr(bars, name)[keep] for name in ("time", "open", "high", "low", "close", "volume")}
    return replace(bars, **columns)


def clean(calendar: str = "24/7", timeframe: str = "1h", count: int = 200, start: str = "2017-01-03") -> Bars:
    frame = Timeframe(timeframe)
    return walk(stamps(calendar, frame, count, parse_time(start)), frame, calendar)


@pytest.mark.parametrize(
    ("calendar", "timeframe"),
    [("24/7", "1h"), ("24/7", "1d"), ("24/7", "1w"), ("24/5", "1h"), ("24/5", "4h"), ("24/5", "1d"), ("24/5", "1w"), ("XNYS", "1w")],
)  # fmt: skip
def test_a_whole_series_raises_none(calendar: str, timeframe: str) -> None:
    assert found(clean(calendar, timeframe, 120)) == {}


def test_too_few_bars_to_judge() -> None:
    assert suspicions(clean(count=2)) == []


def test_gaps_are_counted_in_bars_with_their_places() -> None:
    gap = found(without(clean(), 10, 11, 12, 50))["gap"]
    assert gap.count == 2
    assert gap.places == ("2017-01-03T13:00Z", "2017-01-05T03:00Z")
    assert "4 scheduled bars are absent" in gap.message
    assert "longest: 3" in gap.message
    assert found(without(clean("24/7", "1w", 20), 5, 6))["gap"].message.startswith("2 scheduled bars")


def test_forex_weekends_are_no_gaps_and_thin_hours_are_tolerated() -> None:
    bars = clean("24/5", "1h", 500)
    assert "gap" not in found(without(bars, 30, 31, 32, 33))
    assert found(without(bars, 30, 31, 32, 33, 34))["gap"].count == 1
    days = clean("24/5", "1d", 30)
    assert found(without(days, 3))["gap"].places == ("2017-01-08",)  # the Friday session is absent


def test_exchange_sessions_are_counted_by_the_calendar() -> None:
    bars = clean("XNYS", "1d", 30)  # weekdays, so Martin Luther King Day has a bar although no session
    assert found(bars)["unscheduled-bar"].places == ("2017-01-16",)
    assert found(without(bars, 4, 5))["gap"].places == ("2017-01-09", "2017-01-10")
    hours = clean("XNYS", "1h", 70)
    assert found(without(hours, 7, 8, 9))["short-session"].places == ("2017-01-04",)
    whole_day = found(without(hours, *range(7, 14)))
    assert whole_day["gap"].places == ("2017-01-04",)
    unknown = walk(np.array([parse_time(f"1850-01-0{d}") for d in (2, 3, 4)]), Timeframe.D1, "XTKS")
    assert found(unknown) == {}


def spiked(row: int, factor: float) -> Bars:
    bars = clean()
    scale = np.where(np.arange(len(bars)) == row, factor, 1.0)
    return replace(bars, **{name: getattr(bars, name) * scale for name in ("open", "high", "low", "close")})


@pytest.mark.parametrize("factor", [1.2, 0.8, 2.0, 0.5])
def test_a_single_bar_that_leaps_and_returns(factor: float) -> None:
    assert list(found(spiked(40, factor))) == ["spike"]  # and is no split, there and back
    warning = found(spiked(40, factor))["spike"]
    assert (warning.count, warning.places) == (1, ("2017-01-04T16:00Z",))


def test_a_wick_far_outside_its_body() -> None:
    bars = clean()
    high, low = bars.high.copy(), bars.low.copy()
    high[7] *= 1.2
    low[9] *= 0.8
    assert found(replace(bars, high=high, low=low))["spike"].places == (
        "2017-01-03T07:00Z",
        "2017-01-03T09:00Z",
    )


@pytest.mark.parametrize(
    ("ratio", "warns"), [(2, True), (7, True), (1 / 4, True), (1.5, True), (1.25, False)]
)
def test_a_jump_by_a_round_ratio_that_stays(ratio: float, warns: bool) -> None:
    bars = clean()
    scale = np.where(np.arange(len(bars)) >= 100, 1 / ratio, 1.0)
    prices = {name: getattr(bars, name) * scale for name in ("open", "high", "low", "close")}
    seen = found(replace(bars, **prices))
    assert ("split-like-jump" in seen) is warns
    if warns:
        assert seen["split-like-jump"].places == ("2017-01-07T04:00Z",)
    assert "spike" not in seen


@pytest.mark.parametrize(("length", "warns"), [(11, False), (12, True)])
def test_a_feed_that_stands_still(length: int, warns: bool) -> None:
    bars = clean()
    columns = {}
    for name in ("open", "high", "low", "close"):
        column = getattr(bars, name).copy()
        column[20 : 20 + length] = column[20]
        columns[name] = column
    seen = found(replace(bars, **columns))
    assert ("stale-run" in seen) is warns
    if warns:
        assert (seen["stale-run"].count, seen["stale-run"].places) == (1, ("2017-01-03T20:00Z",))
        assert "longest: 12" in seen["stale-run"].message


def test_a_series_that_never_moves_is_stale_and_nothing_else() -> None:
    bars = clean()
    level = np.full(len(bars), 5.0)
    flat = replace(bars, open=level, high=level, low=level, close=level)
    assert list(found(flat)) == ["stale-run"]


def test_an_ask_below_the_bid() -> None:
    bars = with_quotes(clean(), spread=-0.01)
    assert found(bars)["crossed-quotes"].count == len(bars)
    assert "crossed-quotes" not in found(with_quotes(clean()))


@pytest.mark.parametrize(
    ("source", "timeframe", "symbol", "expected"),
    [
        ("24/7", "1h", "BTCUSD", "24/7"),
        ("24/7", "1d", "BTC-USD", "24/7"),
        ("24/5", "1h", "X", "24/5"),
        ("24/5", "4h", "X", "24/5"),
        ("24/5", "15m", "X", "24/5"),
        ("XNYS", "1h", "SPY", "XNYS"),
        ("XNYS", "1d", "SPY", "XNYS"),
        ("XNYS", "1d", "EURUSD", "24/5"),
        ("XNYS", "1d", "eur.usd", "24/5"),
        ("XNYS", "1d", "EURUSD=X", "24/5"),
        ("24/7", "1w", "SPY", "XNYS"),
    ],
)
def test_the_calendar_is_told_from_the_stamps(
    source: str, timeframe: str, symbol: str, expected: str
) -> None:
    time = stamps(source, Timeframe(timeframe), 400)
    name, reason = infer_calendar(time, Timeframe(timeframe), symbol)
    assert name == expected
    assert reason.startswith("inferred: ")


def test_no_stamps_no_inference() -> None:
    assert infer_calendar(np.empty(0, dtype=np.int64), Timeframe.H1, "X") == ("24/7", "no stamps")


@pytest.mark.parametrize(
    ("calendar", "given", "stated"),
    [("24/7", "1h", "1m"), ("24/7", "1d", "1h"), ("24/7", "1w", "1d"), ("XNYS", "4h", "30m")],
)
def test_bars_of_a_longer_timeframe_than_stated_are_suspected(calendar: str, given: str, stated: str) -> None:
    bars = clean(calendar, given, 60)
    finding = found(replace(bars, timeframe=Timeframe(stated)))["timeframe-doubtful"]
    assert f"is the timeframe {given}?" in finding.message
    assert "timeframe-doubtful" not in found(bars)
    assert "timeframe-doubtful" not in found(without(bars, *range(1, 50)))
