"""Job specifications: everything a worker needs to know, with data named by digest.

The backend resolves a user's request into one of these at submit; the worker needs nothing else.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BacktestSpec", "DatasetRef", "JobSpec", "TrainingSpec", "canonical_json"]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(model: BaseModel) -> bytes:
    """The one byte form of a message: sorted keys, no blanks, UTF-8; equal values give equal bytes."""
    data = model.model_dump(mode="json", exclude_none=True)
    return _CANONICAL.encode(data).encode()


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetRef(_Spec):
    """Bars by content. ``timeframe`` is what the job wants; the manifest may hold a finer one to resample from."""

    symbol: str
    timeframe: str
    manifest: str = Field(description="SHA-256 of the dataset manifest artifact")


class TrainingSpec(_Spec):
    """Train one model. Overrides of the document are already applied to ``strategy``."""

    kind: Literal["training"] = "training"
    strategy_name: str
    strategy: str = Field(description="strategy document, YAML text")
    symbols: list[str]
    timeframes: list[str]
    datasets: list[DatasetRef]
    start_date: str | None = None
    end_date: str | None = None
    seed: int | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int = 1


class BacktestSpec(_Spec):
    """Backtest one trained model on one symbol and base timeframe."""

    kind: Literal["backtesting"] = "backtesting"
    strategy_name: str
    strategy: str
    symbol: str
    timeframe: str
    datasets: list[DatasetRef]
    model: str = Field(description="SHA-256 of the model's bundle.json artifact")
    model_id: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    initial_capital: float | None = None
    commission: float | None = Field(default=None, description="commission rate per traded value, e.g. 0.001")
    slippage: float | None = Field(default=None, description="slippage as a share of price, e.g. 0.0005")


JobSpec = Annotated[TrainingSpec | BacktestSpec, Field(discriminator="kind")]
