"""Files to Bars: bad data are refused by row, or dropped or repaired on explicit request and on record."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import get_args
from zoneinfo import available_timezones

import numpy as np

from ktrdr.bars import Bars, FloatArray, Quotes
from ktrdr.errors import InvalidInput, nearest
from ktrdr.market.calendars import Calendar, calendar_named
from ktrdr.market.checks import Rows, number_columns
from ktrdr.market.columns import Columns, find_columns
from ktrdr.market.frames import QUOTE_COLUMNS
from ktrdr.market.grid import infer_calendar, off_grid, session_stamps
from ktrdr.market.policies import apply_policy, refuse
from ktrdr.market.report import FileFault, Finding, Imported, ImportReport, Policy, RowFault
from ktrdr.market.stamps import Stamps, parse_stamps
from ktrdr.market.suspicions import suspicions
from ktrdr.market.symbols import check_symbol
from ktrdr.market.tables import Table, read_table
from ktrdr.timeframe import Timeframe

__all__ = ["ImportReport", "Imported", "Policy", "import_file"]


def import_file(
    path: str | PathLike[str],
    *,
    symbol: str,
    timeframe: Timeframe,
    calendar: str | None = None,
    policy: Policy = "refuse",
    time_zone: str | None = None,
) -> Imported:
    """Read bars from a CSV (plain or gzipped) or Parquet file.

    Parameters
    ----------
    path
        The file. Columns, in any order and case: one of ``time timestamp date datetime`` (open times: ISO 8601 with
        offset, epoch numbers in s, ms, µs or ns, plain dates for daily bars), ``open high low close``, optionally
        ``volume``, optionally ``bid_`` and ``ask_`` OHLC. With quotes alone the traded prices are the mid. Other
        columns are not used.
    symbol, timeframe
        What the bars are of.
    calendar
        ``24/7``, ``24/5`` or an exchange code; inferred where not given (the report says which and why).
    policy
        ``refuse``: any fault refuses the file. ``quarantine``: rows with faults are dropped (of stamps with differing
        rows, all of them), up to half of the file. ``repair``: rows are sorted, repeated equal rows dropped, high
        and low widened by up to 1 % to hold open and close, missing volumes set to 0; any other fault refuses.
    time_zone
        IANA zone of stamps without offset, such as ``America/New_York``.

    Returns
    -------
    Imported
        The bars, and a report with what was dropped, repaired and suspected.

    Raises
    ------
    InvalidBars
        If the file is refused; ``errors`` name row, column, seen, expected and remedy, and nothing is kept.
    InvalidInput
        If symbol, calendar, policy or time zone are unknown.
    NotFound
        If there is no such file.
    """
    _check_choices(symbol, policy, time_zone)
    declared = None if calendar is None else calendar_named(calendar)
    return _bars_and_report(read_table(Path(path)), symbol, timeframe, declared, policy, time_zone)


def _bars_and_report(
    table: Table,
    symbol: str,
    timeframe: Timeframe,
    calendar: Calendar | None,
    policy: Policy,
    time_zone: str | None,
) -> Imported:
    columns, findings = _columns_of(table)
    stamps = _stamps_of(table, columns, timeframe, time_zone)
    reason = "given"
    if calendar is None:
        name, reason = infer_calendar(stamps.time[stamps.good], timeframe, symbol)
        calendar = calendar_named(name)
    _settle_on_grid(stamps, columns.time, timeframe, calendar)
    values, cell_faults, notes = number_columns(table, columns)
    early = [*table.faults, *(f for f in stamps.faults if isinstance(f, RowFault)), *cell_faults]
    rows = Rows(np.arange(len(table.line), dtype=np.int64), stamps.time, values)
    outcome = apply_policy(policy, table, columns, rows, early)
    bars = _bars_of(outcome.rows, columns, symbol, timeframe, calendar.name)
    report = ImportReport(
        file=table.file,
        symbol=symbol,
        timeframe=timeframe,
        calendar=calendar.name,
        calendar_reason=reason,
        policy=policy,
        rows_read=len(table.line),
        rows_kept=len(bars),
        findings=(*findings, *stamps.notes, *notes, *outcome.findings, *suspicions(bars)),
    )
    return Imported(bars, report)


def _columns_of(table: Table) -> tuple[Columns, list[Finding]]:
    columns, faults, findings = find_columns(table.frame.columns)
    if columns is None:
        refuse(table, faults, "")
    return columns, findings


def _stamps_of(table: Table, columns: Columns, timeframe: Timeframe, time_zone: str | None) -> Stamps:
    stamps = parse_stamps(table.frame[columns.time], timeframe, time_zone=time_zone)
    if any(isinstance(fault, FileFault) for fault in stamps.faults):
        refuse(table, stamps.faults, "")
    return stamps


def _check_choices(symbol: str, policy: str, time_zone: str | None) -> None:
    check_symbol(symbol)
    accepted = get_args(Policy)
    if policy not in accepted:
        raise InvalidInput(
            f"Unknown policy '{policy}'{nearest(policy, accepted) or '.'} Accepted: {', '.join(accepted)}."
        )
    if time_zone is not None and time_zone not in available_timezones():
        hint = nearest(time_zone, available_timezones()) or "."
        raise InvalidInput(
            f"Unknown time zone '{time_zone}'{hint} Write an IANA name such as America/New_York."
        )


def _settle_on_grid(stamps: Stamps, column: str, timeframe: Timeframe, calendar: Calendar) -> None:
    """Name daily exchange bars by their date, and reject stamps at which no bar opens."""
    stamps.time, moved = session_stamps(stamps.time, timeframe, calendar)
    if moved:
        message = f"stamps at midnight in {calendar.zone} became midnight UTC of that date."
        stamps.notes.append(Finding("session-dates", "note", moved, message))
    off_N, expected = off_grid(stamps.time, timeframe, calendar)
    fix = f"Bars are stamped with their open time; is the timeframe {timeframe.value} and the calendar {calendar.name}?"
    stamps.reject(off_N, "off-grid", column, expected, fix)


def _bars_of(rows: Rows, columns: Columns, symbol: str, timeframe: Timeframe, calendar: str) -> Bars:
    quotes = Quotes(*(rows.values[name] for name in QUOTE_COLUMNS)) if columns.quotes else None

    def price(part: str) -> FloatArray:
        if columns.prices:
            return rows.values[part]
        return (rows.values["bid_" + part] + rows.values["ask_" + part]) / 2

    return Bars(
        symbol=symbol,
        timeframe=timeframe,
        time=rows.time,
        open=price("open"),
        high=price("high"),
        low=price("low"),
        close=price("close"),
        volume=rows.values["volume"],
        calendar=calendar,
        quotes=quotes,
    )
