"""Files that are wrong are refused with place, value and remedy; files that are right become equal bars."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ktrdr.bars import Bars, parse_time, to_datetime
from ktrdr.errors import InvalidBars, InvalidInput
from ktrdr.market import import_file
from ktrdr.market.frames import QUOTE_COLUMNS, frame_of
from ktrdr.timeframe import Timeframe
from support.market_bars import any_bars, stamps, walk, with_quotes
from support.price_files import DAYS, HOURS, accepted, refused


def test_blank_lines_are_skipped_and_do_not_shift_row_numbers(tmp_path: Path) -> None:
    lines = HOURS.split("\n")
    text = "\n".join(["", *lines[:2], "", "  ", *lines[2:], "", ""])
    assert len(accepted(tmp_path, text)) == 5
    message = refused(tmp_path, text.replace("1.30,1.10", "1.30,-1.10"))
    assert "row 7, column low" in message


def epochs(*numbers: int) -> str:
    return "time,open,high,low,close\n" + "".join(f"{number},1,2,0.5,1\n" for number in numbers)


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
def test_epoch_numbers_of_any_unit(tmp_path: Path, factor: int) -> None:
    start = 1_483_315_200
    bars = accepted(tmp_path, epochs(start * factor, (start + 3600) * factor))
    assert [str(to_datetime(int(stamp))) for stamp in bars.time] == [
        "2017-01-02 00:00:00+00:00",
        "2017-01-02 01:00:00+00:00",
    ]


def test_units_must_not_be_mixed(tmp_path: Path) -> None:
    message = refused(tmp_path, epochs(1_483_315_200, 1_483_318_800, 1_483_322_400_000))
    assert (
        "row 4, column time: time-unit-mix: seen '1483322400000', expected epoch seconds as in the other rows"
        in message
    )


def test_seconds_read_as_milliseconds_are_recognised(tmp_path: Path) -> None:
    moments = pl.Series("time", [1_483_315_200, 1_483_318_800]).cast(pl.Datetime("ms", "UTC"))
    file = tmp_path / "prices.parquet"
    pl.DataFrame({"time": moments, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0}).write_parquet(file)
    with pytest.raises(InvalidBars, match=r"time-unit: seen 1970-01-18 .* all of them in January 1970"):
        import_file(file, symbol="TEST", timeframe=Timeframe.H1)


def test_dates_written_as_numbers(tmp_path: Path) -> None:
    text = "date,open,high,low,close\n20170103,1,2,0.5,1\n20170104,1,2,0.5,1\n"
    assert accepted(tmp_path, text, "1d").time.tolist() == [
        parse_time("2017-01-03"),
        parse_time("2017-01-04"),
    ]
    assert "date-without-time" in refused(tmp_path, text, "1h")
    three = text + "20170105,1,2,0.5,1\n20170236,1,2,0.5,1\n7,1,2,0.5,1\n"
    message = refused(tmp_path, three, "1d")
    assert "row 5, column date: time-not-recognised: seen '20170236'" in message
    assert "row 6, column date: time-not-recognised: seen '7'" in message


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2017-01-02T05:00:00+05:00", "2017-01-02T00:00Z"),
        ("2017-01-02 00:00:00-0500", "2017-01-02T05:00Z"),
        ("2017-01-02 00:00Z", "2017-01-02T00:00Z"),
        ("2017-01-02 00:00:00 UTC", "2017-01-02T00:00Z"),
        ("2017-01-02T00:00:00.000Z", "2017-01-02T00:00Z"),
        (" 2017-01-02T00:00:00z ", "2017-01-02T00:00Z"),
    ],
)
def test_spellings_of_stamps(tmp_path: Path, stamp: str, expected: str) -> None:
    bars = accepted(tmp_path, f"time,open,high,low,close\n{stamp},1,2,0.5,1\n")
    assert bars.time.tolist() == [parse_time(expected)]


def test_naive_stamps_need_a_declared_zone_and_clock_changes_are_told(tmp_path: Path) -> None:
    def file(*texts: str) -> str:
        return "time,open,high,low,close\n" + "".join(f"{text},1,2,0.5,1\n" for text in texts)

    bars = accepted(tmp_path, file("2017-01-02 09:00", "2017-07-03 09:00"), time_zone="America/New_York")
    assert bars.time.tolist() == [parse_time("2017-01-02T14:00Z"), parse_time("2017-07-03T13:00Z")]
    gap = refused(tmp_path, file("2017-03-12 01:00", "2017-03-12 02:00"), time_zone="America/New_York")
    assert (
        "row 3, column time: dst-gap: seen '2017-03-12 02:00', expected a time that exists in America/New_York"
        in gap
    )
    fold = refused(tmp_path, file("2017-11-05 00:00", "2017-11-05 01:00"), time_zone="America/New_York")
    assert "row 3, column time: dst-fold: seen '2017-11-05 01:00', expected a time that occurs once" in fold
    with pytest.raises(
        InvalidInput, match=r"Unknown time zone 'America/NewYork'; did you mean 'America/New_York'\?"
    ):
        accepted(tmp_path, HOURS, time_zone="America/NewYork")


def test_daily_bars_may_have_plain_dates_or_midnights(tmp_path: Path) -> None:
    plain = accepted(tmp_path, DAYS, "1d")
    assert plain.time.tolist() == [parse_time(f"2017-01-0{day}") for day in (3, 4, 5)]
    midnight = accepted(
        tmp_path, DAYS.replace("-03,", "-03 00:00:00,").replace("-04,", "-04 00:00:00,"), "1d"
    )
    assert midnight.digest() == plain.digest()
    assert "naive-time-zone" in refused(tmp_path, DAYS.replace("-03,", "-03 09:30:00,"), "1d")


def test_daily_stamps_at_local_midnight_become_session_dates(tmp_path: Path) -> None:
    file = tmp_path / "tokyo.csv"
    file.write_text(
        DAYS.replace("2017-01-03", "2017-01-03T15:00:00Z")
        .replace("-04,", "-04T15:00:00Z,")
        .replace("-05,", "-05T15:00:00Z,")
    )
    imported = import_file(file, symbol="7203.T", timeframe=Timeframe.D1, calendar="XTKS")
    assert imported.bars.time.tolist() == [parse_time(f"2017-01-0{day}") for day in (4, 5, 6)]
    assert "session-dates" in [finding.code for finding in imported.report.findings]


@pytest.mark.parametrize(
    ("calendar", "timeframe", "stamp", "ok"),
    [
        ("24/7", "4h", "2017-01-02T04:00Z", True),
        ("24/7", "4h", "2017-01-02T05:00Z", False),
        ("24/5", "4h", "2017-01-02T02:00Z", True),  # counted from 17:00 New York
        ("24/5", "4h", "2017-01-02T04:00Z", True),  # or on the UTC grid
        ("24/5", "4h", "2017-01-02T03:00Z", False),
        ("XNYS", "1h", "2017-01-03T14:30Z", True),
        ("XNYS", "1h", "2017-01-03T14:15Z", False),
        ("24/7", "1h", "2017-01-03T14:30Z", False),
        ("24/5", "1d", "2017-01-02T22:00Z", True),
        ("24/5", "1d", "2017-01-03T00:00Z", True),
        ("24/5", "1d", "2017-01-03T01:00Z", False),
        ("24/7", "1d", "2017-01-03T22:00Z", False),
        ("XNYS", "1w", "2017-01-02T00:00Z", True),
        ("XNYS", "1w", "2017-01-08T00:00Z", False),  # a Sunday: which week is meant?
    ],
)
def test_where_bars_may_open(tmp_path: Path, calendar: str, timeframe: str, stamp: str, ok: bool) -> None:
    text = f"time,open,high,low,close\n{stamp},1,2,0.5,1\n"
    if ok:
        assert len(accepted(tmp_path, text, timeframe, calendar=calendar)) == 1
    else:
        assert "off-grid" in refused(tmp_path, text, timeframe, calendar=calendar)


def test_one_file_lies_on_one_grid(tmp_path: Path) -> None:
    rows = ["2017-01-03T14:30Z", "2017-01-03T15:30Z", "2017-01-03T17:00Z"]
    text = "time,open,high,low,close\n" + "".join(f"{row},1,2,0.5,1\n" for row in rows)
    assert "row 4, column time: off-grid" in refused(tmp_path, text, calendar="XNYS")


def test_columns_in_any_order_and_case_with_others_beside(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(
        "Volume\tLOW\tHigh\tClose\tadj_close\tOpen\tDatetime\n5\t1\t3\t2\t9\t2\t2017-01-02T00:00Z\n"
    )
    imported = import_file(file, symbol="TEST", timeframe=Timeframe.H1, calendar="24/7")
    bars = imported.bars
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0], bars.volume[0]) == (2, 3, 1, 2, 5)
    (note,) = imported.report.findings
    assert str(note) == "note unused-columns (1): columns not used: adj_close."


def test_a_file_without_volume_says_so_and_hints_at_a_misspelt_one(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(HOURS.replace("volume", "Volumme"))
    imported = import_file(file, symbol="TEST", timeframe=Timeframe.H1, calendar="24/7")
    assert not imported.bars.has_volume
    assert "'Volumme'; did you mean 'volume'?" in imported.report.findings[0].message
    assert imported.report.findings[1].code == "no-volume"
    file.write_text("time,open,high,low,close,volume\n2017-01-02T00:00Z,1,2,0.5,1,\n")
    empty = import_file(file, symbol="TEST", timeframe=Timeframe.H1, calendar="24/7")
    assert [finding.code for finding in empty.report.findings] == ["no-volume"]


def test_quoted_fields_and_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    plain = accepted(tmp_path, HOURS)
    quoted = "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in HOURS.strip().split("\n")
    )
    assert accepted(tmp_path, quoted).digest() == plain.digest()
    assert "decimal-comma: seen '1,100'" in refused(tmp_path, quoted.replace('"1.10"', '"1,100"'))
    assert "ragged-row" in refused(tmp_path, quoted + '\n"2017-01-02T05:00:00Z","1.1"')
    file = tmp_path / "prices.csv"
    file.write_bytes(b"\xef\xbb\xbf" + HOURS.replace("\n", "\r\n").encode())
    assert (
        import_file(file, symbol="TEST", timeframe=Timeframe.H1).bars.close.tolist() == plain.close.tolist()
    )
    file.write_bytes(gzip.compress(HOURS.encode()[:80]) + gzip.compress(HOURS.encode()[80:]))
    assert (
        import_file(file, symbol="TEST", timeframe=Timeframe.H1).bars.close.tolist() == plain.close.tolist()
    )


def test_bid_and_ask_alone_trade_at_the_mid(tmp_path: Path) -> None:
    bars = with_quotes(walk(stamps("24/5", Timeframe.H1, 50), Timeframe.H1, "24/5", symbol="EURUSD"))
    file = tmp_path / "quotes.parquet"
    frame_of(bars).select("time", *QUOTE_COLUMNS).write_parquet(file)
    imported = import_file(file, symbol="EURUSD", timeframe=Timeframe.H1).bars
    assert imported.quotes is not None
    np.testing.assert_allclose(imported.close, bars.close, rtol=1e-12)
    np.testing.assert_array_equal(imported.high, (imported.quotes.bid_high + imported.quotes.ask_high) / 2)
    frame_of(bars).write_parquet(file)  # traded prices beside the quotes are kept
    assert (
        import_file(file, symbol="EURUSD", timeframe=Timeframe.H1, calendar="24/5").bars.digest()
        == bars.digest()
    )
    frame_of(bars).drop("ask_low").write_parquet(file)
    partial = import_file(file, symbol="EURUSD", timeframe=Timeframe.H1)
    assert partial.bars.quotes is None
    assert [finding.code for finding in partial.report.warnings] == ["incomplete-quotes"]


def test_bad_quotes_are_refused_by_their_own_name(tmp_path: Path) -> None:
    bars = with_quotes(walk(stamps("24/5", Timeframe.H1, 5), Timeframe.H1, "24/5"))
    frame = frame_of(bars).with_columns(ask_high=pl.lit(0.5))
    file = tmp_path / "quotes.parquet"
    frame.select("time", *QUOTE_COLUMNS).write_parquet(file)
    with pytest.raises(InvalidBars, match=r"row 1, column ask_high: high-below-low"):
        import_file(file, symbol="EURUSD", timeframe=Timeframe.H1)


TIMES: dict[str, Callable[[pl.Series], pl.Series]] = {
    "microseconds": lambda time: time,
    "nanoseconds": lambda time: time * 1_000,
    "datetime utc": lambda time: time.cast(pl.Datetime("us", "UTC")),
    "datetime ns": lambda time: time.cast(pl.Datetime("us", "UTC")).dt.cast_time_unit("ns"),
    "datetime zone": lambda time: time.cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("Asia/Tokyo"),
    "text": lambda time: time.cast(pl.Datetime("us")).dt.to_string("%Y-%m-%dT%H:%M:%SZ"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_parquet_time_columns(tmp_path: Path, kind: str) -> None:
    bars = walk(stamps("24/5", Timeframe.H1, 50), Timeframe.H1, "24/5")
    file = tmp_path / "prices.pq"
    frame_of(bars).with_columns(TIMES[kind](frame_of(bars)["time"]).alias("time")).write_parquet(file)
    assert (
        import_file(file, symbol="T", timeframe=Timeframe.H1, calendar="24/5").bars.digest() == bars.digest()
    )


def test_parquet_dates_naive_times_nulls_and_wrong_types(tmp_path: Path) -> None:
    days = walk(stamps("XNYS", Timeframe.D1, 20), Timeframe.D1, "XNYS")
    file = tmp_path / "days.parquet"

    def write(column: str, values: pl.Series) -> None:
        frame_of(days).with_columns(values.alias(column)).write_parquet(file)

    def message() -> str:
        with pytest.raises(InvalidBars) as caught:
            import_file(file, symbol="T", timeframe=Timeframe.D1, calendar="XNYS")
        return str(caught.value)

    time = frame_of(days)["time"].cast(pl.Datetime("us"))
    write("time", time.cast(pl.Date))
    assert (
        import_file(file, symbol="T", timeframe=Timeframe.D1, calendar="XNYS").bars.digest() == days.digest()
    )
    write("time", time)
    assert (
        import_file(file, symbol="T", timeframe=Timeframe.D1, calendar="XNYS").bars.digest() == days.digest()
    )
    write("time", time.dt.offset_by("9h"))
    assert "row 1, column time: naive-time-zone" in message()
    write("time", time.cast(pl.Date).set(pl.Series([True] + [False] * 19), None))
    assert "row 1, column time: missing-value: seen nothing" in message()
    write("time", time.set(pl.Series([True] + [False] * 19), None))
    assert "row 1, column time: missing-value: seen nothing" in message()
    write("time", pl.Series([1.5] * 20))
    assert "time-not-recognised: the type is Float64" in message()
    write("close", pl.Series([[1.0]] * 20))
    assert "column close: column-type: seen" in message()
    write("close", pl.Series([None] + [100.0] * 19))
    assert "row 1, column close: not-finite: seen nothing" in message()
    frame_of(days)[:0].write_parquet(file)
    assert "columns but no rows" in message()
    pl.DataFrame({"a": [1], "A": [2]}).write_parquet(file)
    assert "duplicate-column: seen 'a' more than once" in message()


def test_a_cut_off_parquet_file_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    file, whole = tmp_path / "cut.parquet", tmp_path / "whole.parquet"
    frame_of(walk(stamps("24/5", Timeframe.H1, 500), Timeframe.H1, "24/5")).write_parquet(whole)
    content = whole.read_bytes()
    for length in range(4, len(content), len(content) // 12):
        file.write_bytes(content[:length])
        with pytest.raises(InvalidBars, match="corrupt-parquet"):
            import_file(file, symbol="T", timeframe=Timeframe.H1)


def test_damaged_parquet_that_would_abort_the_reader_is_refused(tmp_path: Path) -> None:
    file, whole = tmp_path / "bad.parquet", tmp_path / "whole.parquet"
    frame_of(walk(stamps("24/5", Timeframe.H1, 500), Timeframe.H1, "24/5")).write_parquet(whole)
    content = whole.read_bytes()
    for damage in (b"\xff" * 8, b"\0" * 200):
        place = len(content) - 100
        file.write_bytes(
            content[:place] + damage + content[place + len(damage) :][: -len(damage)] + content[-8:]
        )
        with pytest.raises(InvalidBars, match="corrupt-parquet"):
            import_file(file, symbol="T", timeframe=Timeframe.H1)
    (tmp_path / "not.parquet").write_text(HOURS)
    with pytest.raises(InvalidBars, match=r"corrupt-parquet: .*it does not end like a Parquet file"):
        import_file(tmp_path / "not.parquet", symbol="T", timeframe=Timeframe.H1)


@example(edits=[(146, 2, "1e999"), (102, 2, "1e999")], policy="refuse", timeframe=Timeframe.H1)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(HOURS)),
            st.integers(0, 6),
            st.sampled_from(
                [
                    "",
                    ",",
                    '"',
                    "\n",
                    ";",
                    "-",
                    "1e999",
                    "9" * 20,
                    "Z",
                    "+99:99",
                    "nan",
                    "é",
                    "\t",
                    "2017-01-02",
                ]
            ),
        ),
        max_size=4,
    ),
    policy=st.sampled_from(["refuse", "quarantine", "repair"]),
    timeframe=st.sampled_from([Timeframe.H1, Timeframe.D1]),
)
def test_no_file_is_met_with_anything_but_bars_or_a_refusal(
    tmp_path: Path, edits: list[tuple[int, int, str]], policy: str, timeframe: Timeframe
) -> None:
    text = HOURS
    for place, length, replacement in edits:
        text = text[:place] + replacement + text[place + length :]
    file = tmp_path / "edited.csv"
    file.write_text(text)
    try:
        imported = import_file(file, symbol="T", timeframe=timeframe, policy=policy)  # type: ignore[arg-type]
    except InvalidBars as error:
        told = len(error.errors)
    else:
        told = len(imported.bars)
        assert imported.report.rows_kept == len(imported.bars)
    assert told > 0


def test_a_field_that_no_price_file_has(tmp_path: Path) -> None:
    long = '"' + "x" * 200_000 + '"'
    assert "ragged-row" in refused(tmp_path, HOURS.replace("1.30,1.10", f"{long},1.10"))
    assert "missing-header" in refused(tmp_path, long + "\n1,2,3\n")


def test_repair_sorts_drops_repeated_rows_widens_and_fills_volume(tmp_path: Path) -> None:
    header, *rows = HOURS.strip().split("\n")
    rows[2] = "2017-01-02T02:00:00Z,1.301,1.30,1.10,1.25,"  # the open is just above the high; no volume
    file = tmp_path / "prices.csv"
    file.write_text("\n".join([header, rows[4], rows[0], rows[1], rows[1], rows[2], rows[3]]))
    imported = import_file(file, symbol="TEST", timeframe=Timeframe.H1, calendar="24/7", policy="repair")
    assert imported.bars.close.tolist() == [1.15, 1.2, 1.25, 1.3, 1.35]
    assert imported.bars.high[2] == 1.301
    assert imported.bars.volume.tolist() == [10, 11, 0, 13, 14]
    repaired = {
        finding.code: finding.places for finding in imported.report.findings if finding.severity == "repaired"
    }
    assert repaired == {
        "out-of-order": ("row 3",),
        "duplicate-equal": ("row 5",),
        "not-finite": ("row 6",),
        "outside-range": ("row 6",),
    }
    assert len(imported.report.notes()) == 4
    assert imported.report.rows_kept == 5


def test_the_report_as_text_and_json(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(HOURS)
    report = import_file(file, symbol="TEST", timeframe=Timeframe.H1).report
    assert report.lines()[0] == f"{file}: 5 of 5 rows kept as TEST 1h"
    assert report.lines()[1].startswith("calendar XNYS: inferred")
    assert report.notes() == ()
    content = report.to_json()
    assert (content["timeframe"], content["rows_kept"], content["policy"]) == ("1h", 5, "refuse")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bars=any_bars((Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1, Timeframe.W1)))
def test_what_is_written_is_read_back_equal(tmp_path: Path, bars: Bars) -> None:
    file = tmp_path / "law.csv.gz"
    text = frame_of(bars).with_columns(
        pl.col("time").cast(pl.Datetime("us")).dt.to_string("%Y-%m-%dT%H:%M:%SZ")
    )
    file.write_bytes(gzip.compress(text.write_csv().encode()))
    imported = import_file(file, symbol=bars.symbol, timeframe=bars.timeframe, calendar=bars.calendar).bars
    assert imported.digest() == bars.digest()
