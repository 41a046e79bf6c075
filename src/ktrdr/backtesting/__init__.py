"""The simulator: bars and a signal array in, trades, equity and statistics out. It knows no model."""

from __future__ import annotations

from ktrdr.backtesting.config import Costs, PositionRules, SimulationConfig, Sizing, Stops
from ktrdr.backtesting.engine import BacktestingEngine, SimulationProgress, buy_and_hold, simulate
from ktrdr.backtesting.performance import STATISTICS, statistics_of
from ktrdr.backtesting.result import Fills, OpenPosition, Result, Trades

__all__ = [
    "STATISTICS",
    "BacktestingEngine",
    "Costs",
    "Fills",
    "OpenPosition",
    "PositionRules",
    "Result",
    "SimulationConfig",
    "SimulationProgress",
    "Sizing",
    "Stops",
    "Trades",
    "buy_and_hold",
    "simulate",
    "statistics_of",
]
