"""What an import saw: faults that refuse a file, rows that were dropped or repaired, suspicions, remarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from ktrdr.bars import Bars, IntArray
from ktrdr.errors import FieldError, InvalidBars
from ktrdr.timeframe import Timeframe

__all__ = ["FileFault", "Finding", "ImportReport", "Imported", "Policy", "RowFault", "refusal"]

Policy = Literal["refuse", "quarantine", "repair"]
Severity = Literal["warning", "note", "dropped", "repaired"]

_PLACES = 5
_MOST_FAULTS = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing seen in a file.

    ``code`` is stable and greppable; ``places`` are the first few (``row 17``, or stamps); ``count`` is how often.
    """

    code: str
    severity: Severity
    count: int
    message: str
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" First: {', '.join(self.places)}." if self.places else ""
        return f"{self.severity} {self.code} ({self.count:,}): {self.message}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """The story of one import. Row numbers are lines of the file (Parquet: rows), counted from 1."""

    file: str
    symbol: str
    timeframe: Timeframe
    calendar: str
    calendar_reason: str
    policy: Policy
    rows_read: int
    rows_kept: int
    findings: tuple[Finding, ...] = ()

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Suspicions: the data were accepted, and somebody should look."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def notes(self) -> tuple[str, ...]:
        """What was done to the data, for the dataset's manifest; empty where every row was kept as it was."""
        changed = [finding for finding in self.findings if finding.severity in ("dropped", "repaired")]
        return tuple(f"policy {self.policy}: {finding}" for finding in changed)

    def lines(self) -> list[str]:
        """The report as text, for a terminal."""
        head = f"{self.file}: {self.rows_kept:,} of {self.rows_read:,} rows kept as {self.symbol} {self.timeframe.value}"
        calendar = f"calendar {self.calendar}: {self.calendar_reason}"
        return [head, calendar, *(str(finding) for finding in self.findings)]

    def to_json(self) -> dict[str, object]:
        """A JSON object with the fields' names."""
        return asdict(self) | {"timeframe": self.timeframe.value}


@dataclass(frozen=True, slots=True)
class Imported:
    """Bars and how they were won."""

    bars: Bars
    report: ImportReport


@dataclass(frozen=True, slots=True, eq=False)
class RowFault:
    """Rows that break one rule.

    ``rows`` are positions in the table as read, ``column`` the name in the file, ``expected`` a text or a function
    of the place in ``rows``.
    """

    code: str
    column: str
    rows: IntArray
    expected: str | Callable[[int], str]
    fix: str

    def expectation(self, place: int) -> str:
        """What was expected at ``rows[place]``."""
        return self.expected if isinstance(self.expected, str) else self.expected(place)


@dataclass(frozen=True, slots=True)
class FileFault:
    """The file as a whole cannot be used; no policy helps."""

    code: str
    message: str
    where: str = ""


def refusal(
    file: str,
    faults: Iterable[RowFault | FileFault],
    *,
    place: Callable[[int], str],
    seen: Callable[[int, str], str],
    advice: str = "",
) -> InvalidBars:
    """The error that says file, row, column, seen, expected and how to fix it, for every kind of fault.

    Parameters
    ----------
    place
        The position's name in the file (``row 17``).
    seen
        The value in the file at a position and column.
    advice
        One sentence for the end of the headline.
    """
    errors: list[FieldError] = []
    kinds: dict[str, list[int]] = {}
    for fault in faults:
        if isinstance(fault, FileFault):
            kinds.setdefault(fault.code, []).append(0)
            errors.append(FieldError(fault.where, f"{fault.code}: {fault.message}"))
            continue
        count = len(fault.rows)
        kinds.setdefault(fault.code, []).append(count)
        for index, row in enumerate(fault.rows[:_PLACES].tolist()):
            value = seen(row, fault.column)
            text = f"{fault.code}: seen {value}, expected {fault.expectation(index)}. {fault.fix}"
            errors.append(FieldError(f"{place(row)}, column {fault.column}", text))
        if count > _PLACES:
            errors.append(FieldError("", f"{fault.code}: {count - _PLACES:,} more rows like these"))
    told = ", ".join(_kind(code, counts) for code, counts in kinds.items())
    headline = f"{file} cannot be imported: {told}. Nothing was stored. {advice}".rstrip()
    return InvalidBars(headline, errors[:_MOST_FAULTS])


def _kind(code: str, counts: list[int]) -> str:
    """The code and how often it occurs; ``counts`` has a number of rows for each column, 0 for a whole file."""
    total = sum(counts)
    if not total:
        return code if len(counts) == 1 else f"{code} ({len(counts)})"
    noun = "row" if len(counts) == 1 else "cell"
    return f"{code} ({total:,} {noun}{'' if total == 1 else 's'})"


def first_places(rows: IntArray, place: Callable[[int], str]) -> tuple[str, ...]:
    """The names of the first few rows."""
    return tuple(place(int(row)) for row in np.sort(rows)[:_PLACES])
