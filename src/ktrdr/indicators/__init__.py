"""Indicators: one catalog, one ``compute``; each pinned at every bar to TA-Lib and to a naive definition."""

from ktrdr.indicators.catalog import catalog, compute, compute_arrays, indicator
from ktrdr.indicators.spec import IndicatorSpec, Parameter

__all__ = ["IndicatorSpec", "Parameter", "catalog", "compute", "compute_arrays", "indicator"]
