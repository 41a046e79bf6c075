"""Chronological splits that let no row of one part see a bar of the next: purged by t1, then embargoed.

Suffix ``N``: pooled rows, of one or several symbols, in any order. Stamps are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.bars import IntArray
from ktrdr.datasets.labels import Labels
from ktrdr.errors import InvalidInput, TooFewBars
from ktrdr.strategies.document import DataSplit

__all__ = ["PooledRows", "Split", "pool_rows", "purged_split"]


@dataclass(frozen=True, slots=True, eq=False)
class PooledRows:
    """Labelled rows of several symbols, ordered by (time, symbol); each array has shape (N,).

    ``symbol_N`` indexes ``symbols``; ``feature_row_N`` is the row in that symbol's features; ``end_time_N`` is the
    stamp of the last bar the label looked at. ``not_labelled`` and ``not_valid`` count the rows left out.
    """

    symbols: tuple[str, ...]
    symbol_N: IntArray
    feature_row_N: IntArray
    time_N: IntArray
    end_time_N: IntArray
    y_N: npt.NDArray[np.int8]
    not_labelled: int
    not_valid: int

    def __len__(self) -> int:
        return len(self.time_N)


def pool_rows(
    labels: Mapping[str, Labels],
    feature_time: Mapping[str, IntArray],
    feature_valid: Mapping[str, npt.NDArray[np.bool_]],
) -> PooledRows:
    """Join features and labels of all symbols by (symbol, stamp), keeping rows where both are known.

    Parameters
    ----------
    labels, feature_time, feature_valid
        By symbol: the labels, the stamps of the feature rows, and which feature rows have no NaN.

    Raises
    ------
    InvalidInput
        If the three do not name the same symbols, or a feature row has a stamp that is no bar of the labels.
    """
    if not labels.keys() == feature_time.keys() == feature_valid.keys():
        raise InvalidInput(
            f"Labels are of {sorted(labels)}, features of {sorted(feature_time)}: they must be the same symbols."
        )
    symbols = tuple(labels)
    columns: list[tuple[np.ndarray, ...]] = []
    not_labelled = not_valid = 0
    for index, symbol in enumerate(symbols):
        of, time_T, valid_T = labels[symbol], feature_time[symbol], feature_valid[symbol]
        label_row_T = of.rows_at(time_T)
        complete_T = of.complete_T[label_row_T]
        not_valid += int(np.count_nonzero(~valid_T))
        not_labelled += int(np.count_nonzero(valid_T & ~complete_T))
        kept = np.flatnonzero(valid_T & complete_T)
        row = label_row_T[kept]
        columns.append((np.full(len(kept), index), kept, time_T[kept], of.end_time_T[row], of.y_T[row]))
    joined = [np.concatenate(parts) for parts in zip(*columns, strict=True)]
    order = np.lexsort((joined[0], joined[2]))
    symbol_N, row_N, time_N, end_N, y_N = (column[order] for column in joined)
    return PooledRows(symbols, symbol_N, row_N, time_N, end_N, y_N.astype(np.int8), not_labelled, not_valid)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row indices of the three parts, ascending in time, and what was left out between them.

    ``validation_start`` and ``test_start`` are the borders: rows before a border are trained (validated) on only if
    their label ended before it. ``test_start`` is None if the test share is 0.
    """

    train: IntArray
    validation: IntArray
    test: IntArray
    validation_start: int
    test_start: int | None
    purged_train: int
    purged_validation: int
    embargoed_validation: int
    embargoed_test: int

    @property
    def purged(self) -> int:
        """Rows dropped because their label looked across a border."""
        return self.purged_train + self.purged_validation

    @property
    def embargoed(self) -> int:
        """Rows dropped because they follow a border too closely."""
        return self.embargoed_validation + self.embargoed_test


def purged_split(time_N: IntArray, end_time_N: IntArray, shares: DataSplit) -> Split:
    """Split rows by time into train, validation and test.

    Borders are stamps, chosen so that the given share of all rows lies before them; rows of one stamp, whatever
    their symbol, fall into the same part. A row is purged if its label looked at a bar stamped at or after the
    border that follows it. The first ``embargo`` share of all rows after each border is left out too.

    Parameters
    ----------
    time_N, end_time_N
        (N,) stamps of each row's bar and of the last bar its label looked at.
    shares
        Shares of train, validation and test, and the embargo.

    Raises
    ------
    InvalidInput
        If the arrays differ in length or a label ends before its row.
    TooFewBars
        If a part with a share above 0 would be empty.
    """
    if len(time_N) != len(end_time_N) or np.any(end_time_N < time_N):
        raise InvalidInput(
            "Each row needs the stamp of the last bar its label looked at, not before its own."
        )
    order = np.argsort(time_N, kind="stable")
    time, end = time_N[order], end_time_N[order]
    rows = len(time)
    skipped = int(np.ceil(shares.embargo * rows))
    border_1 = _border(time, shares.train)
    border_2 = _border(time, shares.train + shares.validation) if shares.test > 0 else rows
    first_2, first_3 = _after(time, border_1, skipped), _after(time, border_2, skipped)
    train = _ending_before(time, end, 0, border_1)
    validation = _ending_before(time, end, min(first_2, border_2), border_2)
    test = np.arange(first_3, rows, dtype=np.int64)
    for name, part, share in (
        ("train", train, shares.train),
        ("validation", validation, shares.validation),
        ("test", test, shares.test),
    ):
        if share > 0 and len(part) == 0:
            raise TooFewBars(
                f"No rows are left for the {name} part: {rows} labelled rows, share {share}, embargo {skipped} rows. "
                "Give more history, a larger share, a smaller embargo, or labels that look less far ahead."
            )
    return Split(
        train=order[train],
        validation=order[validation],
        test=order[test],
        validation_start=int(time[border_1]),
        test_start=int(time[border_2]) if border_2 < rows else None,
        purged_train=border_1 - len(train),
        purged_validation=border_2 - min(first_2, border_2) - len(validation),
        embargoed_validation=min(first_2, border_2) - border_1,
        embargoed_test=first_3 - border_2,
    )


def _border(time: IntArray, share: float) -> int:
    """First sorted row of the part after ``share``: rows of one stamp stay together."""
    at = round(share * len(time))
    return int(np.searchsorted(time, time[at], side="left")) if at < len(time) else len(time)


def _after(time: IntArray, border: int, skipped: int) -> int:
    """First sorted row that is not embargoed; a stamp is embargoed as a whole."""
    last = border + skipped - 1
    if skipped == 0 or border >= len(time):
        return border
    return int(np.searchsorted(time, time[min(last, len(time) - 1)], side="right"))


def _ending_before(time: IntArray, end: IntArray, first: int, border: int) -> IntArray:
    """Sorted rows from ``first`` to the border whose labels ended before it."""
    rows = np.arange(first, border, dtype=np.int64)
    return rows[end[first:border] < time[border]] if border < len(time) else rows
