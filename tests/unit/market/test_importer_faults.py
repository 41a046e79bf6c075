"""Price files that are wrong: what is said of a row, a file and an option."""

import gzip
from pathlib import Path

import pytest

from ktrdr.errors import InvalidBars, InvalidInput, NotFound
from ktrdr.market import import_file
from ktrdr.timeframe import Timeframe
from support.price_files import DAYS, HOURS, accepted, refused

ROW = "2017-01-02T02:00:00Z,1.20,1.30,1.10,1.25,12"

# Row 4 of the file (the header is row 1) is replaced; what must be said about it.
ROW_FAULTS = {
    "nan": ("2017-01-02T02:00:00Z,1.20,NaN,1.10,1.25,12", "row 4, column high: not-finite: seen 'NaN', expected a finite number."),
    "inf": ("2017-01-02T02:00:00Z,1.20,1.30,-inf,1.25,12", "row 4, column low: not-finite: seen '-inf'"),
    "empty cell": ("2017-01-02T02:00:00Z,1.20,1.30,1.10,,12", "row 4, column close: not-finite: seen nothing"),
    "text": ("2017-01-02T02:00:00Z,1.20,1.30,1.10,n/a,12", "row 4, column close: not-a-number: seen 'n/a', expected a number such as 1234.5."),
    "zero": ("2017-01-02T02:00:00Z,1.20,1.30,0,1.25,12", "row 4, column low: not-positive: seen '0', expected a price above 0."),
    "negative": ("2017-01-02T02:00:00Z,1.20,1.30,-1.1,1.25,12", "row 4, column low: not-positive: seen '-1.1'"),
    "high below low": ("2017-01-02T02:00:00Z,1.20,1.10,1.30,1.25,12", "row 4, column high: high-below-low: seen '1.10', expected at least 1.3 (the low)."),
    "open above high": ("2017-01-02T02:00:00Z,1.31,1.30,1.10,1.25,12", "row 4, column high: outside-range: seen '1.30', expected at least 1.31 (the open)."),
    "close below low": ("2017-01-02T02:00:00Z,1.20,1.30,1.10,1.05,12", "row 4, column low: outside-range: seen '1.10', expected at most 1.05 (the close)."),
    "negative volume": ("2017-01-02T02:00:00Z,1.20,1.30,1.10,1.25,-12", "row 4, column volume: negative-volume: seen '-12', expected 0 or more."),
    "missing volume": ("2017-01-02T02:00:00Z,1.20,1.30,1.10,1.25,", "row 4, column volume: not-finite: seen nothing, expected a finite number. Write 0 where unknown."),
    "equal duplicate": ("2017-01-02T01:00:00Z,1.15,1.25,1.05,1.20,11", "row 4, column time: duplicate-equal: seen '2017-01-02T01:00:00Z', expected each stamp once. Remove the repeated row"),
    "other duplicate": ("2017-01-02T01:00:00Z,1.15,1.25,1.05,1.21,11", "row 3, column time: duplicate-different: seen '2017-01-02T01:00:00Z'"),
    "back in time": ("2017-01-01T02:00:00Z,1.20,1.30,1.10,1.25,12", "row 4, column time: out-of-order: seen '2017-01-01T02:00:00Z', expected a later stamp than in the row before."),
    "off the grid": ("2017-01-02T02:07:00Z,1.20,1.30,1.10,1.25,12", "row 4, column time: off-grid: seen '2017-01-02T02:07:00Z', expected an open time on the 1h grid."),
    "naive among aware": ("2017-01-02T02:00:00,1.20,1.30,1.10,1.25,12", "row 4, column time: mixed-time-zones: seen '2017-01-02T02:00:00', expected every stamp with an offset, or none."),
    "no date": ("02.01.2017 02:00,1.20,1.30,1.10,1.25,12", "row 4, column time: time-not-recognised: seen '02.01.2017 02:00', expected 2015-01-31, 2015-01-31T14:00:00Z"),
    "no such day": ("2017-02-30T02:00:00Z,1.20,1.30,1.10,1.25,12", "row 4, column time: time-not-recognised: seen '2017-02-30T02:00:00Z'"),
    "far future": ("9017-01-02T02:00:00Z,1.20,1.30,1.10,1.25,12", "row 4, column time: implausible-time: seen '9017-01-02T02:00:00Z', expected a year from 1900 to 2100."),
    "too few fields": ("2017-01-02T02:00:00Z,1.20,1.30", "row 4, column time: ragged-row: seen '2017-01-02T02:00:00Z', expected 6 fields in the line, it has 3."),
    "too many fields": ("2017-01-02T02:00:00Z,1,20,1.30,1.10,1.25,12", "row 4, column time: ragged-row: seen '2017-01-02T02:00:00Z', expected 6 fields in the line, it has 7."),
    "impossible spike": ("2017-01-02T02:00:00Z,120,130,110,125,12", "row 4, column close: impossible-spike: seen '125', expected about 1.2 (the close before)."),
}  # fmt: skip


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_a_bad_row_is_named_with_row_column_seen_expected_and_remedy(tmp_path: Path, name: str) -> None:
    row, told = ROW_FAULTS[name]
    message = refused(tmp_path, HOURS.replace(ROW, row))
    assert told in message
    code = told.split(": ")[1]
    assert f"{code} (" in message.split("\n")[0]


@pytest.mark.parametrize("name", sorted(set(ROW_FAULTS) - {"other duplicate"}))
def test_quarantine_drops_that_row_and_records_it(tmp_path: Path, name: str) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(HOURS.replace(ROW, ROW_FAULTS[name][0]))
    imported = import_file(file, symbol="TEST", timeframe=Timeframe.H1, calendar="24/7", policy="quarantine")
    assert imported.bars.close.tolist() == [1.15, 1.2, 1.3, 1.35]
    dropped = [finding for finding in imported.report.findings if finding.severity == "dropped"]
    assert [(finding.count, finding.places) for finding in dropped] == [(1, ("row 4",))]
    assert (imported.report.rows_read, imported.report.rows_kept) == (5, 4)
    (note,) = imported.report.notes()
    assert note.startswith(f"policy quarantine: dropped {dropped[0].code} (1)")


def test_quarantine_drops_all_rows_of_a_contradictory_stamp(tmp_path: Path) -> None:
    bars = accepted(tmp_path, HOURS.replace(ROW, ROW_FAULTS["other duplicate"][0]), policy="quarantine")
    assert bars.close.tolist() == [1.15, 1.3, 1.35]


def test_a_stamp_with_equal_and_differing_rows_has_one_fault(tmp_path: Path) -> None:
    again = "2017-01-02T01:00:00Z,1.15,1.25,1.05,1.20,11"
    message = refused(tmp_path, HOURS.replace(ROW, f"{again}\n{again.replace('1.20', '1.21')}"))
    assert "cannot be imported: duplicate-different (3 rows). Nothing" in message


def test_a_kind_of_fault_is_named_once_whatever_the_columns(tmp_path: Path) -> None:
    blank = "2017-01-02T02:00:00Z,NaN,NaN,NaN,NaN,11"
    assert ": not-finite (4 cells). Nothing" in refused(tmp_path, HOURS.replace(ROW, blank))
    assert ": missing-column (5). Nothing" in refused(tmp_path, "a,b\nx,y\n")


def test_quarantine_does_not_empty_a_file(tmp_path: Path) -> None:
    text = "\n".join([HOURS.split("\n", maxsplit=1)[0], *reversed(HOURS.strip().split("\n")[1:])])
    message = refused(tmp_path, text, policy="quarantine")
    assert "out-of-order (4 rows)" in message
    assert "More than half of the rows would be dropped" in message


def test_several_faults_are_told_together_and_long_lists_are_cut(tmp_path: Path) -> None:
    rows = [f"2017-01-02T{hour:02d}:00:00Z,1.2,1.1,1.3,1.2,-1" for hour in range(8)]
    message = refused(tmp_path, "\n".join(["time,open,high,low,close,volume", *rows]))
    assert "negative-volume (8 rows), high-below-low (8 rows)" in message or (
        "high-below-low (8 rows), negative-volume (8 rows)" in message
    )
    assert "row 6, column high" in message
    assert "row 7, column high" not in message
    assert "high-below-low: 3 more rows like these" in message
    assert "choose --policy repair or --policy quarantine" in message


FILE_FAULTS: dict[str, tuple[str | bytes, str]] = {
    "empty": (b"", "empty-file: the file is empty"),
    "blank": (b"\n \n\n", "empty-file: the file holds nothing but blank lines"),
    "header only": ("time,open,high,low,close\n", "empty-file: the file has a header but no rows"),
    "no header": (HOURS.split("\n", 1)[1], "row 1: missing-header: the first line is data, not column names"),
    "one column": ("a\n1\n2\n", "row 1: missing-header: no columns found: seen 'a'"),
    "misspelt": (HOURS.replace("high", "hihg"), "column high: missing-column: seen ['time', 'open', 'hihg', 'low', 'close', 'volume'], expected 'high'. The column 'hihg' looks like it: rename it."),
    "missing": (HOURS.replace("high", "x"), "expected 'high'. Add it, or rename its column."),
    "twice": (HOURS.replace("high", "Open"), "duplicate-column: seen ['open'] more than once"),
    "no time": (HOURS.replace("time", "xyz"), "expected one of time, timestamp, date, datetime. Rename the column of open times."),
    "time misspelt": (HOURS.replace("time", "tmie"), "did you mean 'time'? Rename the column of open times."),
    "two times": (HOURS.replace("volume", "date"), "column date: duplicate-column: seen ['time', 'date'], expected one time column"),
    "half the quotes": ("time,bid_open,bid_high\n1,2,3\n", "column bid_low: missing-column"),
    "latin-1": (HOURS.encode() + "größe".encode("latin-1"), "row 7: wrong-encoding: byte 0xf6 is not UTF-8. Save the file as UTF-8."),
    "utf-16": (HOURS.encode("utf-16"), "wrong-encoding: this is not UTF-8 text (UTF-16 or binary)"),
    "binary": (b"\x7fELF\0\0\0\0", "wrong-encoding"),
    "excel": (b"PK\x03\x04rest", "wrong-kind: this is a ZIP or Excel file"),
    "truncated gzip": (gzip.compress(HOURS.encode() * 50)[:-30], "corrupt-gzip: truncated or damaged"),
    "damaged gzip": (gzip.compress(HOURS.encode())[:-8] + b"12345678", "corrupt-gzip"),
    "no gzip": (b"\x1f\x8b\x08rubbish rubbish rubbish", "corrupt-gzip"),
    "truncated parquet": (b"PAR1\x15\x04", "corrupt-parquet: truncated, damaged or of an unknown type"),
    "decimal comma": (HOURS.replace(",", ";").replace(".", ","), "row 2, column open: decimal-comma: seen '1,10', expected a decimal point. Export with points"),
    "all naive": (HOURS.replace("Z", ""), "row 2, column time: naive-time-zone: seen '2017-01-02T00:00:00', expected a stamp with its offset from UTC. Write UTC stamps"),
    "dates only": (DAYS, "column date: date-without-time: seen dates without a time of day, expected the open time of each 1h bar"),
    "small numbers": ("time,open,high,low,close\n1,1,1,1,1\n2,1,1,1,1\n", "row 2, column time: time-not-recognised: seen '1'"),
    "words": ("time,open,high,low,close\nmon,1,1,1,1\ntue,1,1,1,1\n", "row 2, column time: time-not-recognised: seen 'mon'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILE_FAULTS)
@pytest.mark.parametrize("policy", ["refuse", "quarantine", "repair"])
def test_a_bad_file_is_refused_under_every_policy(tmp_path: Path, name: str, policy: str) -> None:
    content, told = FILE_FAULTS[name]
    assert told in refused(tmp_path, content, policy=policy)


def test_a_file_that_unpacks_too_large_is_refused(tmp_path: Path) -> None:
    from ktrdr.market.tables import read_table

    file = tmp_path / "bomb.csv.gz"
    file.write_bytes(gzip.compress(HOURS.encode() * 100))
    with pytest.raises(InvalidBars, match="too-large"):
        read_table(file, most_bytes=1000)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="Check the path"):
        import_file(tmp_path / "absent.csv", symbol="T", timeframe=Timeframe.H1)
    with pytest.raises(InvalidBars, match="unreadable: the file cannot be opened"):
        import_file(tmp_path, symbol="T", timeframe=Timeframe.H1)


def test_wrong_options_are_told_before_the_file_is_read(tmp_path: Path) -> None:
    for options, told in (
        ({"symbol": "../T"}, "not a symbol name"),
        ({"calendar": "XNYSE!"}, "Unknown calendar"),
        ({"policy": "repare"}, r"Unknown policy 'repare'; did you mean 'repair'\?"),
    ):
        with pytest.raises(InvalidInput, match=told):
            import_file(tmp_path / "absent", **{"symbol": "T", "timeframe": Timeframe.H1} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["nan", "zero", "other duplicate", "impossible spike", "negative volume", "high below low"]
)
def test_repair_does_not_invent(tmp_path: Path, name: str) -> None:
    message = refused(tmp_path, HOURS.replace(ROW, ROW_FAULTS[name][0]), policy="repair")
    assert "cannot be repaired" in message
