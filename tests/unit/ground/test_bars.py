"""The noun everyone shares: what it accepts, what it refuses, what slicing and digests promise."""

import hashlib
import struct
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.bars import Bars, Quotes, parse_time, to_datetime
from ktrdr.errors import InvalidBars, InvalidInput
from ktrdr.timeframe import Timeframe

HOUR = 3_600_000_000


def make(n: int = 10, **changes: object) -> Bars:
    close = 100.0 + np.arange(n)
    columns: dict[str, object] = {
        "symbol": "TEST",
        "timeframe": Timeframe.H1,
        "time": np.arange(n, dtype=np.int64) * HOUR,
        "open": close - 0.5,
        "high": close + 1,
        "low": close - 1,
        "close": close,
        "volume": np.full(n, 5.0),
    }
    return Bars(**(columns | changes))  # type: ignore[arg-type]


def quotes_for(bars: Bars, spread: float = 0.1) -> Quotes:
    return Quotes(
        *(getattr(bars, part) - spread / 2 for part in ("open", "high", "low", "close")),
        *(getattr(bars, part) + spread / 2 for part in ("open", "high", "low", "close")),
    )


def changed(name: str, row: int, value: float) -> np.ndarray:
    column = getattr(make(), name).copy()
    column[row] = value
    return column


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("open", np.nan, "row 3, column open: must be finite and > 0, seen nan"),
        ("close", np.inf, "row 3, column close: must be finite and > 0, seen inf"),
        ("low", -1.0, "row 3, column low: must be finite and > 0, seen -1.0"),
        ("low", 103.2, "row 3, column low: low is above open or close, seen 103.2"),
        ("high", 102.7, "row 3, column high: high is below open or close, seen 102.7"),
        ("volume", -0.5, "row 3, column volume: must be finite and >= 0, seen -0.5"),
        ("volume", np.nan, "row 3, column volume: must be finite and >= 0, seen nan"),
    ],
)
def test_a_false_value_is_refused_with_row_column_and_value(column: str, value: float, told: str) -> None:
    with pytest.raises(InvalidBars) as caught:
        make(**{column: changed(column, 3, value)})
    assert told in [str(error) for error in caught.value.errors]
    assert "TEST 1h" in str(caught.value)


@pytest.mark.parametrize("stamps", [[0, 2, 1], [0, 1, 1]])
def test_stamps_must_increase(stamps: list[int]) -> None:
    with pytest.raises(InvalidBars, match="column time: stamps must increase strictly"):
        make(3, time=np.array(stamps))


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(InvalidBars, match="columns differ in shape"):
        make(10, volume=np.ones(9))


def test_at_most_twenty_rows_of_a_kind_are_named() -> None:
    with pytest.raises(InvalidBars) as caught:
        make(50, volume=np.full(50, -1.0))
    assert len(caught.value.errors) == 20


def test_quotes_are_checked_and_frozen() -> None:
    bars = make()
    quotes = quotes_for(bars)
    kept = replace(bars, quotes=quotes)
    assert kept.quotes is not None
    assert not kept.quotes.bid_open.flags.writeable
    broken = quotes.ask_low.copy()
    broken[2] = np.nan
    with pytest.raises(InvalidBars, match="row 2, column ask_low: must be finite"):
        replace(bars, quotes=replace(quotes, ask_low=broken))
    with pytest.raises(InvalidBars, match="columns differ in shape"):
        replace(bars, quotes=replace(quotes, ask_low=broken[:4]))


def test_bars_cannot_be_changed_not_even_through_the_array_that_made_them() -> None:
    source = np.full(10, 5.0)
    bars = make(volume=source)
    source[0] = -1.0
    assert bars.volume[0] == 5.0
    with pytest.raises(ValueError, match="read-only"):
        bars.close[0] = 1.0
    with pytest.raises(FrozenInstanceError):
        bars.symbol = "X"  # type: ignore[misc]


def test_a_slice_is_a_view_with_its_quotes() -> None:
    bars = make()
    bars = replace(bars, quotes=quotes_for(bars))
    part = bars[2:5]
    assert len(part) == 3
    assert np.shares_memory(part.close, bars.close)
    assert part.quotes is not None
    assert part.quotes.bid_close.tolist() == bars.quotes.bid_close[2:5].tolist()  # type: ignore[union-attr]


def test_between_includes_both_ends_and_the_whole_day_of_a_plain_date() -> None:
    bars = make(72)
    assert bars.between("1970-01-02", "1970-01-02").time.tolist() == [h * HOUR for h in range(24, 48)]
    assert len(bars.between(date(1970, 1, 2), date(1970, 1, 2))) == 24
    assert len(bars.between(datetime(1970, 1, 2), datetime(1970, 1, 2))) == 1
    assert len(bars.between("1970-01-02T05:00:00Z", "1970-01-02T07:00:00Z")) == 3
    assert len(bars.between(None, None)) == 72
    assert len(bars.between(5 * HOUR, None)) == 67
    assert len(bars.between("1999-01-01", "1998-01-01")) == 0


@pytest.mark.parametrize(
    "end", ["1970-01-02", " 1970-01-02", "19700102", "1970-W01-5", np.datetime64("1970-01-02")]
)
def test_a_plain_date_in_any_spelling_is_the_whole_day(end: str) -> None:
    assert make(72).between("19700102", end).time.tolist() == [h * HOUR for h in range(24, 48)]


def test_a_stamp_taken_from_the_bars_themselves_is_a_moment() -> None:
    bars = make(72)
    assert bars.between(bars.time[5], bars.time[7]).time.tolist() == [5 * HOUR, 6 * HOUR, 7 * HOUR]
    assert len(bars.between(np.datetime64("1970-01-02T05:00"), np.datetime64("1970-01-02T07:00"))) == 3


def test_the_digest_covers_every_column_and_the_timeframe_but_not_the_symbol() -> None:
    bars = make()
    quotes = quotes_for(bars)
    others = [replace(bars, **{n: changed(n, 4, 104.2)}) for n in ("open", "close", "volume")]
    others += [replace(bars, high=changed("high", 4, 200.0)), replace(bars, low=changed("low", 4, 50.0))]
    others += [replace(bars, time=bars.time + 1), replace(bars, timeframe=Timeframe.M1), bars[:-1]]
    others += [
        replace(bars, quotes=quotes),
        replace(bars, quotes=replace(quotes, ask_close=quotes.bid_close)),
    ]
    digests = {bars.digest(), *(other.digest() for other in others)}
    assert len(digests) == 1 + len(others)
    assert bars.with_symbol("OTHER").digest() == bars.digest()
    assert make().digest() == bars.digest()


def test_the_digest_is_the_same_on_every_machine() -> None:
    columns = [99.5, 100.5, 101, 102, 99, 100, 100, 101, 5, 5]
    canonical = b"1h" + struct.pack("<2q", 0, HOUR) + struct.pack("<10d", *columns)
    assert make(2).digest() == hashlib.sha256(canonical).hexdigest()


def test_an_empty_one_and_its_face() -> None:
    empty = make()[:0]
    assert len(empty) == 0
    assert "empty" in repr(empty)
    assert repr(make()) == "Bars(TEST 1h, 10 bars, 1970-01-01 .. 1970-01-01, 24/7)"
    assert make().start == datetime(1970, 1, 1, tzinfo=UTC)
    assert make().end == datetime(1970, 1, 1, 9, tzinfo=UTC)
    assert make().has_volume
    assert not make(volume=np.zeros(10)).has_volume


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-02", 24 * HOUR),
        (" 1970-01-01T01:00:00Z ", HOUR),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T01:00", HOUR),
        (date(1970, 1, 2), 24 * HOUR),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (7, 7),
    ],
)
def test_times_are_read_as_utc(text: str, expected: int) -> None:
    assert parse_time(text) == expected


def test_a_text_that_is_no_date_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'31\.01\.2015' is not a date\. Write it as 2015-01-31"):
        parse_time("31.01.2015")


@pytest.mark.parametrize("value", [True, 1.5, np.datetime64("NaT"), [1], None])
def test_what_is_no_moment_at_all_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"is not a date\. Write it as 2015-01-31"):
        parse_time(value)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(st.integers(min_value=-(10**16), max_value=4 * 10**15))
def test_stamp_and_datetime_are_inverse(stamp: int) -> None:
    assert parse_time(to_datetime(stamp)) == stamp
