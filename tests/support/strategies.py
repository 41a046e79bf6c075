"""Strategy documents and prices made for tests."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
from ruamel.yaml import YAML

from ktrdr.strategies.library import StrategyLibrary, example_root


def edited(example: str, /, **changes: Any) -> str:
    """An example's YAML with values replaced; keys are paths such as ``model__architecture__hidden_layers``."""
    yaml = YAML()
    document = yaml.load(StrategyLibrary([example_root()]).text(example))
    for path, value in changes.items():
        node = document
        *way, last = path.split("__")
        for step in way:
            node = node[step]
        node[last] = value
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def endless_training() -> str:
    """A strategy whose training would take hours; for cancels."""
    return edited("sp500_trend", name="endless", training__epochs=100_000, training__early_stopping=None)


def minutes(rows: int, seed: int = 1) -> pl.DataFrame:
    """A random walk of one-minute bars around the clock."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, rows)))
    open_ = np.concatenate(([100.0], close[:-1]))
    spread = np.abs(rng.normal(0, 1e-4, rows)) * close
    stamps = np.datetime64("2015-01-05T00:00") + np.arange(rows).astype("timedelta64[m]")
    return pl.DataFrame(
        {
            "time": pl.Series(stamps.astype("datetime64[us]")).dt.replace_time_zone("UTC"),
            "open": open_,
            "high": np.maximum(open_, close) + spread,
            "low": np.minimum(open_, close) - spread,
            "close": close,
            "volume": np.ones(rows),
        }
    )
