"""Which column of a file is which: names are matched without regard to case; a wrong one gets a hint."""

from __future__ import annotations

from dataclasses import dataclass

from ktrdr.errors import nearest
from ktrdr.market.frames import PRICES, QUOTE_COLUMNS
from ktrdr.market.report import FileFault, Finding

__all__ = ["Columns", "find_columns"]

_TIME_NAMES = ("time", "timestamp", "date", "datetime")
_KNOWN = (*_TIME_NAMES, *PRICES, "volume", *QUOTE_COLUMNS)


@dataclass(frozen=True, slots=True)
class Columns:
    """Names in the file. ``prices`` and ``quotes`` map our names to the file's; either may be empty, not both."""

    time: str
    prices: dict[str, str]
    quotes: dict[str, str]
    volume: str | None


def find_columns(names: list[str]) -> tuple[Columns | None, list[FileFault], list[Finding]]:
    """Match the names of a file.

    Returns
    -------
    The columns (None where there are faults), the faults, and notes about columns that are not used.
    """
    by_name = {name.strip().lower(): name for name in names}
    faults = _duplicates(names)
    times = [by_name[name] for name in _TIME_NAMES if name in by_name]
    prices = {name: by_name[name] for name in PRICES if name in by_name}
    quotes = {name: by_name[name] for name in QUOTE_COLUMNS if name in by_name}
    strangers = [name for lowered, name in by_name.items() if lowered not in _KNOWN]
    if len(times) != 1:
        faults.append(_time_fault(times, strangers, names))
    whole_quotes = len(quotes) == len(QUOTE_COLUMNS)
    if len(prices) < len(PRICES) and (prices or not whole_quotes):
        wanted = QUOTE_COLUMNS if quotes and not prices else PRICES
        faults += _missing([name for name in wanted if name not in by_name], strangers, names)
    if faults:
        return None, faults, []
    notes = _notes(strangers, by_name, quotes, whole_quotes)
    columns = Columns(times[0], prices, quotes if whole_quotes else {}, by_name.get("volume"))
    return columns, [], notes


def _duplicates(names: list[str]) -> list[FileFault]:
    lowered = [name.strip().lower() for name in names]
    twice = sorted({name for name in lowered if lowered.count(name) > 1})
    return [
        FileFault("duplicate-column", f"seen '{name}' more than once, expected once. Remove or rename one.")
        for name in twice
    ]


def _time_fault(times: list[str], strangers: list[str], names: list[str]) -> FileFault:
    if times:
        message = f"seen {times}, expected one time column. Join date and time into one ISO 8601 column 'time', or remove one."
        return FileFault("duplicate-column", message, f"column {times[1]}")
    hint = next((hint for name in strangers if (hint := nearest(name.lower(), _TIME_NAMES))), "")
    message = f"no time column: seen {names}, expected one of {', '.join(_TIME_NAMES)}{hint or '.'} Rename the column of open times."
    return FileFault("missing-column", message, "column time")


def _missing(missing: list[str], strangers: list[str], names: list[str]) -> list[FileFault]:
    faults = []
    for name in missing:
        hint = nearest(name, [stranger.lower() for stranger in strangers])
        close = (
            f" The column {hint.split()[-1].rstrip('?')} looks like it: rename it."
            if hint
            else " Add it, or rename its column."
        )
        faults.append(
            FileFault("missing-column", f"seen {names}, expected '{name}'.{close}", f"column {name}")
        )
    return faults


def _notes(
    strangers: list[str], by_name: dict[str, str], quotes: dict[str, str], whole_quotes: bool
) -> list[Finding]:
    notes = []
    if strangers:
        message = f"columns not used: {', '.join(strangers)}."
        if "volume" not in by_name:
            message += next(
                (f" '{name}'{hint}" for name in strangers if (hint := nearest(name.lower(), ["volume"]))), ""
            )
        notes.append(Finding("unused-columns", "note", len(strangers), message))
    if quotes and not whole_quotes:
        absent = [name for name in QUOTE_COLUMNS if name not in by_name]
        message = f"bid and ask are not used: {', '.join(absent)} missing."
        notes.append(Finding("incomplete-quotes", "warning", len(absent), message))
    if "volume" not in by_name:
        notes.append(
            Finding("no-volume", "note", 1, "the file has no volume; indicators that need it will refuse.")
        )
    return notes
