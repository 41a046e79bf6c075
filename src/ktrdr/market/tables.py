"""A file as a table of columns, before anything is believed: CSV (also gzipped) as text, Parquet as typed.

Every row knows its place in the file: the line of a CSV file (the header is line 1), the row of a Parquet file.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ktrdr.bars import IntArray
from ktrdr.errors import InvalidBars, NotFound
from ktrdr.market.report import FileFault, RowFault, refusal

__all__ = ["Table", "read_table"]

_PARQUET = b"PAR1"
_TOLD = "refused: "
_READ_PARQUET = f"""
import sys, polars
try:
    polars.read_parquet(sys.argv[1])
except (polars.exceptions.PolarsError, OSError) as error:
    sys.exit("{_TOLD}" + str(error).splitlines()[0])
"""
_MOST_BYTES = 4 << 30
_CHUNK = 1 << 22
_SEPARATORS = (",", ";", "\t", "|")
_LOOKS_LIKE_DATA = re.compile(r"\s*[-+]?\d[\d.,:/TZ +-]*\s*\Z")


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """``frame`` holds the columns under the names of the file; ``line`` (N,) the place of each row.

    ``faults`` are rows of the wrong shape; their cells cannot be trusted.
    """

    file: str
    frame: pl.DataFrame
    line: IntArray
    faults: tuple[RowFault, ...] = ()

    def place(self, row: int) -> str:
        """The row's name for people: ``row 17``."""
        return f"row {self.line[row]}"

    def seen(self, row: int, column: str) -> str:
        """The cell as the file has it, shortened."""
        if column not in self.frame.columns:
            return "nothing"
        value = self.frame[column][row]
        text = f"'{value}'" if value is not None and str(value) else "nothing"
        return text if len(text) <= 60 else text[:56] + "...'"


def read_table(path: Path, *, most_bytes: int = _MOST_BYTES) -> Table:
    """Read a CSV, gzipped CSV or Parquet file; the content decides, not the name.

    Raises
    ------
    NotFound
        If there is no such file.
    InvalidBars
        If it is empty, truncated, damaged, of another kind, badly encoded, or larger than ``most_bytes`` unpacked.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except FileNotFoundError:
        raise NotFound("file", str(path), hint="Check the path") from None
    except OSError as error:
        raise _refused(path, "unreadable", f"the file cannot be opened: {error.strerror}.") from None
    if not magic:
        raise _refused(path, "empty-file", "the file is empty. Export it again.")
    if magic == _PARQUET or path.suffix in (".parquet", ".pq"):
        return _read_parquet(path)
    if magic.startswith(b"PK"):
        raise _refused(path, "wrong-kind", "this is a ZIP or Excel file. Unpack it or export it as CSV.")
    content = _gunzip(path, most_bytes) if magic.startswith(b"\x1f\x8b") else path.read_bytes()
    if len(content) > most_bytes:
        raise _refused(path, "too-large", f"more than {most_bytes:,} bytes. Split it by year.")
    return _table_of_text(path, _decode(path, content))


def _refused(path: Path, code: str, message: str, where: str = "") -> InvalidBars:
    return refusal(str(path), [FileFault(code, message, where)], place=str, seen=lambda _row, _column: "")


def _read_parquet(path: Path) -> Table:
    if (reason := _parquet_fault(path)) is not None:
        message = f"truncated, damaged or of an unknown type ({reason}). Export it again."
        raise _refused(path, "corrupt-parquet", message)
    frame = pl.read_parquet(path)
    if not frame.height:
        raise _refused(path, "empty-file", "the file has columns but no rows. Export it again.")
    return Table(str(path), frame, np.arange(1, frame.height + 1, dtype=np.int64))


def _parquet_fault(path: Path) -> str | None:
    """Why the file cannot be read, or None.

    Damaged lengths inside a Parquet file make the reader panic, or ask for so much memory that the process is
    aborted (both seen). So a throw-away process reads the file first, and that one dies in place of ours.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - len(_PARQUET)))
        if stream.read() != _PARQUET or size < 3 * len(_PARQUET):
            return "it does not end like a Parquet file"
    command = [sys.executable, "-P", "-c", _READ_PARQUET, str(path)]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own code and a path
    if done.returncode == 0:
        return None
    told = done.stderr.decode(errors="replace").strip().splitlines()
    ours = [line for line in told if line.startswith(_TOLD)]
    return ours[-1].removeprefix(_TOLD)[:160] if ours else "its bytes make the reader fail"


def _gunzip(path: Path, most_bytes: int) -> bytes:
    """Unpack, never much more than ``most_bytes``; a member cut short or damaged is refused."""
    parts, size = [], 0
    try:
        with gzip.open(path, "rb") as stream:
            while size <= most_bytes and (part := stream.read(_CHUNK)):
                parts.append(part)
                size += len(part)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        message = f"truncated or damaged ({error}). Download or compress it again."
        raise _refused(path, "corrupt-gzip", message) from None
    return b"".join(parts)


def _decode(path: Path, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:1000]:
        raise _refused(path, "wrong-encoding", "this is not UTF-8 text (UTF-16 or binary). Save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise _refused(
            path, "wrong-encoding", f"byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8.", f"row {line}"
        ) from None


def _table_of_text(path: Path, text: str) -> Table:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise _refused(path, "empty-file", "the file holds nothing but blank lines. Export it again.")
    header_line = numbered[0][1]
    separator = max(_SEPARATORS, key=header_line.count)
    names = [name.strip() for name in _fields(header_line, separator)]
    _check_header(path, numbered[0][0], names)
    body = numbered[1:]
    if not body:
        raise _refused(path, "empty-file", "the file has a header but no rows. Export it again.")
    number = np.array([line for line, _ in body], dtype=np.int64)
    texts = [line for _, line in body]
    split = _split_quoted if '"' in text else _split_plain
    frame, width = split(texts, separator, names)
    return Table(str(path), frame, number, _ragged(width, names))


def _check_header(path: Path, line: int, names: list[str]) -> None:
    where = f"row {line}"
    if any(_LOOKS_LIKE_DATA.match(name) for name in names):
        message = f"the first line is data, not column names: seen {names}. Put a line such as 'time,open,high,low,close,volume' first."
        raise _refused(path, "missing-header", message, where)
    if len(names) < 2:
        message = f"no columns found: seen '{''.join(names)[:60]}', expected names separated by comma, semicolon, tab or |."
        raise _refused(path, "missing-header", message, where)
    lowered = [name.lower() for name in names if name]
    if twice := sorted({name for name in lowered if lowered.count(name) > 1}):
        message = f"seen {twice} more than once, expected each column once. Remove or rename one."
        raise _refused(path, "duplicate-column", message, where)


def _split_plain(lines: list[str], separator: str, names: list[str]) -> tuple[pl.DataFrame, IntArray]:
    series = pl.Series(lines)
    width = series.str.count_matches(separator, literal=True).cast(pl.Int64).to_numpy() + 1
    parts = series.str.split_exact(separator, len(names) - 1).struct.unnest()
    return _named(parts, names), width


def _split_quoted(lines: list[str], separator: str, names: list[str]) -> tuple[pl.DataFrame, IntArray]:
    """Line by line, so that a quote that is never closed spoils its own line only."""
    rows = [_fields(line, separator) for line in lines]
    width = np.array([len(row) for row in rows], dtype=np.int64)
    full = [(row + [""] * len(names))[: len(names)] for row in rows]
    schema = {f"column_{index}": pl.String for index in range(len(names))}
    return _named(pl.DataFrame(full, schema=schema, orient="row"), names), width


def _fields(line: str, separator: str) -> list[str]:
    """The fields of one line; one that no price file has (a field of 128 KiB) has none."""
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:
        return []


def _named(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    columns = [
        frame.to_series(index).str.strip_chars().alias(name) for index, name in enumerate(names) if name
    ]
    return pl.DataFrame(columns)


def _ragged(width: IntArray, names: list[str]) -> tuple[RowFault, ...]:
    rows = np.flatnonzero(width != len(names))
    if not len(rows):
        return ()
    fault = RowFault(
        code="ragged-row",
        column=next(name for name in names if name),
        rows=rows,
        expected=lambda place: f"{len(names)} fields in the line, it has {width[rows[place]]}",
        fix="A shorter last line means the file was cut off: export it again. Commas inside numbers must go.",
    )
    return (fault,)
