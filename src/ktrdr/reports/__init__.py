"""Reports: one backtest as an HTML page, a PNG picture and rows of text. They read results and compute none."""

from __future__ import annotations

from ktrdr.reports.data import ReportData, SampleNote, TrainingRange
from ktrdr.reports.html import build_html
from ktrdr.reports.png import build_png
from ktrdr.reports.table import StatisticRow, statistics_rows

__all__ = [
    "ReportData",
    "SampleNote",
    "StatisticRow",
    "TrainingRange",
    "build_html",
    "build_png",
    "statistics_rows",
]
