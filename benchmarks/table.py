"""What a benchmark answers and how it is shown: rows, and one table of them with targets and the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Failure", "Row", "render"]

_HEADER = ("what", "target", "measured", "met?", "CPU s", "wall s", "vs baseline", "notes")
_RIGHT = {1, 2, 4, 5, 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured figure, a median.

    ``key`` names it in ``baseline.json`` and stays when the words change. ``cpu_s``: CPU seconds (user and system) of
    one repetition, of every process that took part unless ``note`` says otherwise; None where the figure is a share.
    ``wall_s``: how long was measured, where waiting is part of it.
    """

    key: str
    what: str
    measured: float
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    strict: bool = False
    cpu_s: float | None = None
    wall_s: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        if self.measured == self.target:
            return not self.strict
        return (self.measured < self.target) is (self.better == "lower")


@dataclass(frozen=True, slots=True)
class Failure:
    """A benchmark that gave no rows, and why."""

    module: str
    reason: str


def render(outcomes: Sequence[Row | Failure], baseline: Mapping[str, float]) -> str:
    """A Markdown table, aligned for a terminal. ``vs baseline`` is measured / baseline."""
    lines = [_HEADER, *(_cells(outcome, baseline) for outcome in outcomes)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    rule = ["-" * (width - 1) + ":" if i in _RIGHT else "-" * width for i, width in enumerate(widths)]
    return "\n".join(_line(cells, widths) for cells in (lines[0], rule, *lines[1:]))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if i in _RIGHT else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def _cells(outcome: Row | Failure, baseline: Mapping[str, float]) -> tuple[str, ...]:
    if isinstance(outcome, Failure):
        return (outcome.module, "-", "ERROR", "no", "-", "-", "-", _plain(outcome.reason)[:160])
    before = baseline.get(outcome.key)
    return (
        outcome.what,
        "-" if outcome.target is None else f"{_sign(outcome)} {_figure(outcome.target)} {outcome.unit}",
        f"{_figure(outcome.measured)} {outcome.unit}",
        {None: "-", True: "yes", False: "NO"}[outcome.met],
        "-" if outcome.cpu_s is None else f"{outcome.cpu_s:.3g}",
        "-" if outcome.wall_s is None else f"{outcome.wall_s:.3g}",
        f"{outcome.measured / before:.2f}" if before else "-",
        _plain(outcome.note),
    )


def _plain(text: str) -> str:
    """One line without the table's own bar."""
    return " ".join(text.replace("|", "/").split())


def _sign(row: Row) -> str:
    sign = "<" if row.better == "lower" else ">"
    return sign if row.strict else sign + "="


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
