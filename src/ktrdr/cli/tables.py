"""Tables as lines of text: figures of a column alike, names never cut, the terminal's width respected."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["column_texts", "figure", "table_lines"]

_GAP = "  "
_FEWEST = 20  # a last column is folded to no less,
_MOST_LINES = 3  # and to no more lines than these
_MOST_DECIMALS = 8
_HUGE = 1e15  # from here on digits stop meaning anything


def figure(value: Any) -> str:
    """A value as people read it: four significant decimals, thousands separated, '-' for what is undefined."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list | tuple):
        return ", ".join(figure(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {figure(v)}" for k, v in value.items())
    return str(value)


def _float(value: float) -> str:
    size = abs(value)
    if size >= _HUGE:
        return f"{value:.4g}"
    return f"{value:,.2f}" if size >= 1000 else f"{value:.4g}" if size < 1 else f"{value:.3f}"


def column_texts(values: Sequence[Any]) -> list[str]:
    """The texts of a column; numbers with a fraction share their decimals, so that their points line up."""
    floats = [v for v in values if isinstance(v, float)]
    numbers = all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values)
    decimals = _decimals([abs(v) for v in floats if v]) if numbers and floats else None
    if decimals is None:
        return [figure(value) for value in values]
    return ["-" if value is None else f"{value:,.{decimals}f}" for value in values]


def _decimals(sizes: Sequence[float]) -> int | None:
    """So many that the smallest number shows four digits; None where one form does not suit all."""
    if not all(map(math.isfinite, sizes)) or max(sizes, default=0.0) >= _HUGE:
        return None
    if max(sizes, default=0.0) >= 1000:
        return 2
    needed = 3 - math.floor(math.log10(min(sizes, default=1.0)))
    return max(needed, 2) if needed <= _MOST_DECIMALS else None


def table_lines(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    width: int | None = None,
    spare: Sequence[str] = (),
) -> list[str]:
    """The table's lines, the header first.

    Parameters
    ----------
    columns, rows
        Numbers, and columns of texts made of one (``+1.20 %``), line up at the right.
    width
        Columns of the terminal; None for a pipe, where nothing is dropped or folded.
    spare
        Columns that may be dropped, in this order, as long as the table is wider than ``width``.

    Returns
    -------
    list of str
        Without blanks at the end. Where the table is still too wide, its last column is folded at words, and what
        does not fit into three lines is left out (``…``); no other cell is ever cut, since names are there to be
        copied.
    """
    names = list(columns)
    texts = {name: column_texts([row[i] for row in rows]) for i, name in enumerate(columns)}
    right = {name for i, name in enumerate(columns) if all(_is_figure(row[i]) for row in rows)}
    sizes = {name: max(map(len, [name, *texts[name]])) for name in names}
    room = math.inf if width is None else width
    for name in spare:
        least = sizes[names[-1]] if names[-1] in right else min(sizes[names[-1]], _FEWEST)
        if _before_last(names, sizes) + least > room:
            names.remove(name)
    left = room - _before_last(names, sizes)
    fold = names[-1] not in right and _FEWEST <= left < sizes[names[-1]]
    lines = []
    for cells in [names, *([texts[name][row] for name in names] for row in range(len(rows)))]:
        tails = _folded(cells[-1], int(left)) if fold else [cells[-1]]
        head = [
            _aligned(cell, sizes[name], name in right) for cell, name in zip(cells[:-1], names, strict=False)
        ]
        blank = [" " * len(cell) for cell in head]
        for number, tail in enumerate(tails):
            end = tail.rjust(sizes[names[-1]]) if names[-1] in right else tail
            lines.append(_GAP.join([*(blank if number else head), end]).rstrip())
    return lines


def _before_last(names: Sequence[str], sizes: Mapping[str, int]) -> int:
    return sum(sizes[name] + len(_GAP) for name in names[:-1])


def _folded(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(
        text, width, break_long_words=False, break_on_hyphens=False, max_lines=_MOST_LINES, placeholder=" …"
    )
    return lines or [""]


def _aligned(cell: str, size: int, right: bool) -> str:
    return cell.rjust(size) if right else cell.ljust(size)


def _is_figure(value: object) -> bool:
    """Numbers, and texts that are made of one (``+1.20 %``): these line up at the right."""
    if isinstance(value, str):
        return not value.strip(" +-–0123456789.,%e")
    return isinstance(value, int | float | None)
