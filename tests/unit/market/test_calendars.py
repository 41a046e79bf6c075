"""When a bar is known, how many there are in a year, where a day begins."""

import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from ktrdr.bars import Bars, parse_time
from ktrdr.errors import InvalidInput
from ktrdr.market.calendars import bars_per_year, calendar_named, known_at
from ktrdr.market.localtime import from_wall, to_wall
from ktrdr.market.sessions import exchange_sessions, exchange_zone
from ktrdr.timeframe import Timeframe
from support.market_bars import walk

Y2017 = (datetime(2017, 1, 1, tzinfo=UTC), datetime(2017, 12, 31, tzinfo=UTC))


def bars_at(timeframe: str, calendar: str, *texts: str) -> Bars:
    return walk(np.array([parse_time(text) for text in texts]), Timeframe(timeframe), calendar)


@pytest.mark.parametrize(
    ("timeframe", "calendar", "stamp", "known"),
    [
        ("1h", "24/7", "2017-07-04T10:00Z", "2017-07-04T11:00Z"),
        ("1h", "XNYS", "2017-07-05T19:00Z", "2017-07-05T20:00Z"),
        ("4h", "24/5", "2017-07-05T21:00Z", "2017-07-06T01:00Z"),
        ("1d", "24/7", "2017-07-04", "2017-07-05"),
        ("1w", "24/7", "2017-07-03", "2017-07-10"),
        # New York closes at 21:00 UTC in winter, 20:00 in summer, 17:00 on the eve of Independence Day.
        ("1d", "XNYS", "2017-01-03", "2017-01-03T21:00Z"),
        ("1d", "XNYS", "2017-07-05", "2017-07-05T20:00Z"),
        ("1d", "XNYS", "2017-07-03", "2017-07-03T17:00Z"),
        ("1d", "XNYS", "2017-07-04", "2017-07-05"),  # a holiday: no session, so late rather than early
        ("1d", "XTKS", "1850-01-02", "1850-01-03"),  # before the calendar begins
        ("1w", "XNYS", "2017-04-10", "2017-04-13T20:00Z"),  # Good Friday: the week ends on Thursday
        ("1w", "XNYS", "2017-04-12", "2017-04-13T20:00Z"),
        ("1w", "XTKS", "1850-01-07", "1850-01-14"),
        ("1d", "XTKS", "2017-01-04", "2017-01-04T06:00Z"),
        # Forex: 17:00 New York, but a day stamped at midnight UTC may run to the next midnight.
        ("1d", "24/5", "2017-01-02T22:00Z", "2017-01-03T22:00Z"),
        ("1d", "24/5", "2017-07-03T21:00Z", "2017-07-04T21:00Z"),
        ("1d", "24/5", "2017-07-04", "2017-07-05"),
        ("1d", "24/5", "2017-07-02", "2017-07-03T21:00Z"),  # a Sunday stamp belongs to Monday
        ("1w", "24/5", "2017-07-02T21:00Z", "2017-07-07T21:00Z"),
        ("1w", "24/5", "2017-07-03", "2017-07-07T21:00Z"),
    ],
)  # fmt: skip
def test_a_bar_is_known_when_its_session_is_over(
    timeframe: str, calendar: str, stamp: str, known: str
) -> None:
    assert known_at(bars_at(timeframe, calendar, stamp)).tolist() == [parse_time(known)]


def test_known_at_of_nothing() -> None:
    for calendar in ("24/7", "24/5", "XNYS"):
        assert len(known_at(bars_at("1d", calendar, "2017-01-03")[:0])) == 0


@pytest.mark.parametrize(
    ("calendar", "timeframe", "expected"),
    [
        ("24/7", "1d", 365.25),
        ("24/7", "1h", 365.25 * 24),
        ("24/7", "1w", 365.25 / 7),
        ("24/5", "1h", 52.1775 * 120),
        ("24/5", "15m", 52.1775 * 480),
        ("24/5", "1d", 52.1775 * 5),
        ("24/5", "1w", 52.1775),
        ("XNYS", "1d", 251),  # sessions of 2017
        ("XNYS", "1w", 52),
        ("XNYS", "1h", 249 * 7 + 2 * 4),  # half days on 3 July and 24 November: 09:30 to 13:00
        ("XNYS", "30m", 249 * 13 + 2 * 7),
    ],
)
def test_bars_per_year_counts_what_is_scheduled(calendar: str, timeframe: str, expected: float) -> None:
    assert bars_per_year(calendar, Timeframe(timeframe), *Y2017) == pytest.approx(expected, rel=1e-12)


def test_bars_per_year_averages_whole_years() -> None:
    start, end = datetime(2016, 11, 3, tzinfo=UTC), datetime(2018, 2, 1, tzinfo=UTC)
    assert bars_per_year("XNYS", Timeframe.D1, start, end) == (252 + 251 + 251) / 3
    month = datetime(2017, 3, 1, tzinfo=UTC), datetime(2017, 3, 31, tzinfo=UTC)
    assert bars_per_year("XNYS", Timeframe.D1, *month) == 251


def test_years_without_sessions_are_told() -> None:
    with pytest.raises(InvalidInput, match=r"XTKS knows no sessions in 1850\.\.1850"):
        bars_per_year("XTKS", Timeframe.D1, datetime(1850, 1, 1), datetime(1850, 5, 1))


@pytest.mark.parametrize("name", ["XNYC", "24-7", "", "nyse!"])
def test_an_unknown_calendar_lists_what_is_accepted(name: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"Unknown calendar '.*'[.;] .*Accepted: 24/7, 24/5, or an exchange code"
    ):
        calendar_named(name)
    with pytest.raises(InvalidInput, match="Unknown calendar"):
        exchange_sessions(name, 2017, 2017)


def test_a_misspelt_calendar_gets_a_hint() -> None:
    with pytest.raises(InvalidInput, match=r"did you mean 'XTKS'\?"):
        calendar_named("XTKSS")


def test_zones_and_bounds_of_other_exchanges() -> None:
    assert exchange_zone("XTKS") == "Asia/Tokyo"
    early = exchange_sessions("XTKS", 1900, 2000)
    assert len(early.dates) > 0
    assert early.row_of(early.dates[:3] + 1).tolist() == [-1, -1, -1]
    assert early.row_of(early.dates[-2:]).tolist() == [len(early.dates) - 2, len(early.dates) - 1]
    none = exchange_sessions("XTKS", 1800, 1801)
    assert len(none.dates) == 0
    assert none.row_of(early.dates[:2]).tolist() == [-1, -1]


def test_a_forex_day_is_named_by_the_day_on_which_it_ends() -> None:
    texts = [
        "2017-03-10T21:59Z",
        "2017-03-10T22:00Z",
        "2017-03-12T20:59Z",
        "2017-03-12T21:00Z",
        "2017-03-13T20:59Z",
    ]
    moments = np.array([parse_time(text) for text in texts])
    days = calendar_named("24/5").session_date(moments, Timeframe.H1)
    monday = parse_time("2017-03-13")  # clocks went forward on Sunday the 12th
    assert days.tolist() == [parse_time("2017-03-10"), monday, monday, monday, monday]


def test_wall_clocks_there_and_back() -> None:
    moments = np.array([parse_time("2017-03-12T06:59Z"), parse_time("2017-03-12T07:00Z")])
    shown = to_wall(moments, "America/New_York")
    assert shown.tolist() == [parse_time("2017-03-12T01:59"), parse_time("2017-03-12T03:00")]
    assert from_wall(shown, "America/New_York").tolist() == moments.tolist()
    skipped, twice = parse_time("2017-03-12T02:30"), parse_time("2017-11-05T01:30")
    back = from_wall(np.array([skipped, twice, shown[0]]), "America/New_York")
    assert back.tolist() == [parse_time("2017-03-12T07:30Z"), parse_time("2017-11-05T05:30Z"), moments[0]]


def test_heavy_libraries_are_loaded_only_where_an_exchange_needs_them() -> None:
    code = """
import sys
import numpy as np
import ktrdr.market
from ktrdr.market import bars_per_year, known_at, load_sample, resample
from ktrdr.timeframe import Timeframe
from datetime import datetime, UTC
bars = load_sample("EURUSD", Timeframe.H1)
known_at(resample(bars, Timeframe.D1))
bars_per_year("24/5", Timeframe.H1, bars.start, bars.end)
print([m for m in ("pandas", "exchange_calendars", "numba", "torch") if m in sys.modules])
bars_per_year("XNYS", Timeframe.D1, bars.start, bars.end)
print("exchange_calendars" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
    assert done.stderr == ""
