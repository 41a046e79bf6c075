"""What becomes of rows with faults: the file is refused, the rows are dropped, or they are repaired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from ktrdr.bars import IntArray
from ktrdr.market.checks import Rows, impossible_spikes, order_faults, value_faults
from ktrdr.market.columns import Columns
from ktrdr.market.frames import PRICES
from ktrdr.market.report import FileFault, Finding, Policy, RowFault, first_places, refusal
from ktrdr.market.tables import Table

__all__ = ["Outcome", "apply_policy", "refuse"]

_WIDEN_LIMIT = 0.01
_MOST_DROPPED = 0.5
_ADVICE = {
    "refuse": "Correct the file, or choose --policy repair or --policy quarantine.",
    "repair": "These faults cannot be repaired; correct the file, or choose --policy quarantine.",
    "quarantine": "More than half of the rows would be dropped: is this the right file, timeframe and calendar?",
}


def refuse(table: Table, faults: Sequence[RowFault | FileFault], advice: str) -> NoReturn:
    """Raise the error that tells every fault."""
    raise refusal(table.file, faults, place=table.place, seen=table.seen, advice=advice)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rows that remain, in order, and what was dropped or repaired to get them."""

    rows: Rows
    findings: tuple[Finding, ...]


def apply_policy(
    policy: Policy, table: Table, columns: Columns, rows: Rows, early: list[RowFault]
) -> Outcome:
    """The rows that the policy lets through, and what was done to the others."""
    sound = rows.take(~np.isin(rows.origin, _rows_of(early)))
    if policy == "quarantine":
        return _quarantine(table, columns, rows, sound, early)
    findings: tuple[Finding, ...] = ()
    if policy == "repair":
        sound, findings = _repair(table, columns, sound)
    faults = early + value_faults(sound, columns) + order_faults(sound, columns.time)
    faults = faults or impossible_spikes(sound, columns)
    if faults:
        refuse(table, faults, _ADVICE[policy])
    return Outcome(sound, findings)


def _rows_of(faults: Sequence[RowFault]) -> IntArray:
    if not faults:
        return np.empty(0, dtype=np.int64)
    return np.unique(np.concatenate([fault.rows for fault in faults]))


def _quarantine(table: Table, columns: Columns, rows: Rows, sound: Rows, early: list[RowFault]) -> Outcome:
    faults = list(early)

    def drop(found: list[RowFault], remaining: Rows) -> Rows:
        faults.extend(found)
        return remaining.take(~np.isin(remaining.origin, _rows_of(found)))

    # Order is judged among rows that are sound by themselves, spikes among rows in order.
    sound = drop(value_faults(sound, columns), sound)
    sound = drop(order_faults(sound, columns.time), sound)
    sound = drop(impossible_spikes(sound, columns), sound)
    if len(sound) < _MOST_DROPPED * len(rows) or not len(sound):
        refuse(table, faults, _ADVICE["quarantine"])
    findings = tuple(
        Finding(
            fault.code,
            "dropped",
            len(fault.rows),
            f"column {fault.column}: expected {fault.expectation(0)}.",
            first_places(fault.rows, table.place),
        )
        for fault in faults
    )
    return Outcome(sound, findings)


def _repair(table: Table, columns: Columns, rows: Rows) -> tuple[Rows, tuple[Finding, ...]]:
    findings = []

    def note(code: str, origins: IntArray, message: str) -> None:
        if len(origins):
            places = first_places(origins, table.place)
            findings.append(Finding(code, "repaired", len(origins), message, places))

    late = np.flatnonzero(np.diff(rows.time) < 0) + 1
    note("out-of-order", rows.origin[late], "rows sorted by time.")
    rows = rows.take(np.argsort(rows.time, kind="stable"))
    for fault in order_faults(rows, columns.time):
        if fault.code == "duplicate-equal":
            note(fault.code, fault.rows, "repeated rows dropped.")
            rows = rows.take(~np.isin(rows.origin, fault.rows))
    volume = rows.values["volume"]
    note("not-finite", rows.origin[np.isnan(volume)], "missing volumes set to 0.")
    values = rows.values | {"volume": np.nan_to_num(volume, nan=0.0, posinf=np.inf)}
    for prefix in ([""] if columns.prices else []) + (["bid_", "ask_"] if columns.quotes else []):
        parts = [values[prefix + part] for part in PRICES]
        high, low = np.maximum.reduce(parts), np.minimum.reduce(parts)
        near = (high <= values[prefix + "high"] * (1 + _WIDEN_LIMIT)) & (
            low >= values[prefix + "low"] * (1 - _WIDEN_LIMIT)
        )
        changed = near & ((high != values[prefix + "high"]) | (low != values[prefix + "low"]))
        note(
            "outside-range",
            rows.origin[changed],
            f"{prefix}high and {prefix}low widened to hold all prices.",
        )
        values |= {
            prefix + "high": np.where(changed, high, values[prefix + "high"]),
            prefix + "low": np.where(changed, low, values[prefix + "low"]),
        }
    return replace(rows, values=values), tuple(findings)
