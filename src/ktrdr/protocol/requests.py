"""What clients send to start work, and the answer to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.protocol.messages import Message

__all__ = ["OperationStarted", "StartBacktest", "StartTraining", "StrategySave", "StrategyText"]

Name = Annotated[str, Field(min_length=1, max_length=128)]
Day = Annotated[str, Field(max_length=40, description="ISO date, included, e.g. 2015-01-31")]
Priority = Annotated[int, Field(ge=-1000, le=1000)]


class _Start(Message):
    """One of ``strategy`` (YAML text), ``strategy_name`` and ``strategy_config_path`` names the strategy."""

    strategy: str | None = Field(default=None, description="a strategy document, YAML text")
    strategy_name: Name | None = Field(default=None, description="name of a stored strategy")
    strategy_config_path: str | None = Field(
        default=None, max_length=256, description="NAME.yaml inside the strategy folders"
    )
    start_date: Day | None = None
    end_date: Day | None = None
    when_busy: Literal["queue", "reject"] = "queue"
    priority: Priority = 0
    time_limit_s: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="seconds that one attempt may run; then the operation has failed",
    )


class StartBacktest(_Start):
    """Backtest a trained model. Without ``model_id`` the newest model of the strategy that fits is used; without
    any strategy the document that the model was trained with."""

    symbol: Name | None = Field(default=None, description="default: the strategy's first")
    timeframe: Name | None = Field(default=None, description="default: the strategy's base timeframe")
    model_id: Name | None = None
    model_path: str | None = Field(
        default=None, max_length=256, description="a model id; pickles are refused"
    )
    initial_capital: float | None = Field(default=None, gt=0, lt=1e15, description="default: the strategy's")
    commission: float | None = Field(default=None, ge=0, lt=1, description="share of the traded value")
    slippage: float | None = Field(default=None, ge=0, lt=1, description="share of the price")


class StartTraining(_Start):
    """Train a model."""

    symbols: list[Name] | None = Field(default=None, min_length=1, description="default: the strategy's")
    timeframes: list[Name] | None = Field(default=None, min_length=1, description="default: the strategy's")
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    prefer_gpu: bool = True
    require_gpu: bool = False


class OperationStarted(Message):
    """The operation is in the ledger; ``status`` says that the request was taken, ``operation_status`` where it is."""

    operation_id: str
    operation_type: OperationType
    status: Literal["started"] = "started"
    operation_status: OperationStatus
    queue_position: int | None = None
    parent_operation_id: str | None = None
    message: str


class StrategyText(Message):
    """A document to check."""

    strategy: str = Field(description="a strategy document, YAML text")


class StrategySave(StrategyText):
    """A document to store."""

    overwrite: bool = False
