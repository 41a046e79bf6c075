"""ktrdr: research platform for neuro-fuzzy trading strategies.

>>> import ktrdr
>>> bars = ktrdr.load_bars("SP500", "1d")
>>> strategy = ktrdr.load_strategy("sp500_trend")
>>> model = ktrdr.train(strategy, bars)                               # needs ktrdr[training]
>>> result = ktrdr.backtest(model, bars, start="2015-01-01")
>>> result.statistics["sharpe_ratio"]

Importing this package loads nothing else: every name below is fetched at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktrdr.backtesting import SimulationConfig, buy_and_hold, simulate
    from ktrdr.bars import Bars
    from ktrdr.indicators import compute
    from ktrdr.jobs.notebook import Model, backtest, load_bars, load_model, load_strategy, train
    from ktrdr.market.importer import import_file
    from ktrdr.strategies import Strategy, parse_strategy, with_overrides
    from ktrdr.timeframe import Timeframe

    __version__: str

__all__ = [
    "Bars",
    "Model",
    "SimulationConfig",
    "Strategy",
    "Timeframe",
    "__version__",
    "backtest",
    "buy_and_hold",
    "compute",
    "import_file",
    "load_bars",
    "load_model",
    "load_strategy",
    "parse_strategy",
    "simulate",
    "train",
    "with_overrides",
]

_HOMES = {
    "Bars": "ktrdr.bars",
    "Model": "ktrdr.jobs.notebook",
    "SimulationConfig": "ktrdr.backtesting",
    "Strategy": "ktrdr.strategies",
    "Timeframe": "ktrdr.timeframe",
    "backtest": "ktrdr.jobs.notebook",
    "buy_and_hold": "ktrdr.backtesting",
    "compute": "ktrdr.indicators",
    "import_file": "ktrdr.market.importer",
    "load_bars": "ktrdr.jobs.notebook",
    "load_model": "ktrdr.jobs.notebook",
    "load_strategy": "ktrdr.jobs.notebook",
    "parse_strategy": "ktrdr.strategies",
    "simulate": "ktrdr.backtesting",
    "train": "ktrdr.jobs.notebook",
    "with_overrides": "ktrdr.strategies",
}
_ROOMS = ("backtesting", "datasets", "fuzzy", "indicators", "market", "models", "strategies")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("ktrdr")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _ROOMS:
        value = import_module(f"ktrdr.{name}")
    else:
        raise AttributeError(f"module 'ktrdr' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})  # what notebooks complete: no module that happens to be loaded
