"""What the backend shows of data, models, strategies, indicators and results."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, JsonValue

from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.protocol.messages import Message, ProblemItem
from ktrdr.protocol.specs import BacktestSpec, TrainingSpec

__all__ = [
    "ArtifactsCollected",
    "CollectArtifacts",
    "DatasetList",
    "DatasetView",
    "ImportView",
    "IndicatorList",
    "IndicatorParameter",
    "IndicatorView",
    "ModelList",
    "ModelView",
    "ResultsView",
    "SignalView",
    "SpecView",
    "StrategyCheck",
    "StrategyDocument",
    "StrategyList",
    "StrategySummary",
    "TablePage",
]


class DatasetView(Message):
    """A stored dataset; ``digest`` is the identity of its bars, ``manifest`` the artifact that lists its files."""

    symbol: str
    timeframe: str
    calendar: str
    source: str
    licence: str
    rows: int
    start: datetime = Field(description="open time of the first bar")
    end: datetime = Field(description="open time of the last bar")
    quotes: bool = Field(default=False, description="whether bid and ask are stored")
    digest: str
    manifest: str
    notes: list[str] = Field(default_factory=list)


class ImportView(DatasetView):
    """A dataset just imported; ``report`` says what the importer saw."""

    report: list[str] = Field(default_factory=list)


class DatasetList(Message):
    items: list[DatasetView]
    total: int
    next_cursor: str | None = None


class ModelView(Message):
    """A trained model; ``bundle`` is the digest of its bundle.json."""

    model_id: str
    strategy_name: str
    symbols: list[str]
    timeframes: list[str]
    created_at: datetime
    operation_id: str
    bundle: str
    metrics: dict[str, Any] = Field(default_factory=dict)


class ModelList(Message):
    items: list[ModelView]
    total: int
    next_cursor: str | None = None


class SignalView(Message):
    """What a model says on the newest closed bar of a symbol."""

    model_id: str
    symbol: str
    timeframe: str
    time: datetime = Field(description="when the bar closed and the signal was known")
    bar_opened_at: datetime
    close: float
    action: str = Field(description="BUY, HOLD or SELL, after the threshold")
    confidence: float = Field(description="probability of the most probable class")
    threshold: float
    probabilities: dict[str, float]
    memberships: dict[str, float] = Field(description="what the network saw, by feature")


class StrategySummary(Message):
    """A stored strategy; ``error`` says what is wrong with one that has faults."""

    name: str
    description: str = ""
    version: str = ""
    symbols: list[str] = Field(default_factory=list)
    timeframes: list[str] = Field(default_factory=list)
    error: str | None = None


class StrategyList(Message):
    items: list[StrategySummary]
    total: int
    next_cursor: str | None = None


class StrategyDocument(StrategySummary):
    """A stored strategy with its YAML."""

    text: str


class StrategyCheck(Message):
    """A valid document; ``notes`` are remarks that stop nothing."""

    valid: Literal[True] = True
    name: str
    symbols: list[str]
    timeframes: list[str]
    features: list[str] = Field(description="names of the network's inputs, in order")
    warmup: dict[str, int] = Field(description="bars before the first usable row, by timeframe")
    notes: list[ProblemItem] = Field(default_factory=list)


class IndicatorParameter(Message):
    name: str
    kind: Literal["int", "float", "choice"]
    default: float | int | str
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str] = Field(default_factory=list)
    doc: str = ""


class IndicatorView(Message):
    """One entry of the catalog; the first output is the primary one."""

    name: str
    title: str
    parameters: list[IndicatorParameter]
    outputs: list[str]
    bounds: tuple[float, float] | None = None
    needs_volume: bool = False
    formula: str = ""
    reference: str = ""


class IndicatorList(Message):
    items: list[IndicatorView]
    total: int
    next_cursor: str | None = None


class ResultsView(Message):
    """The result of a completed operation; ``links`` name what else there is to fetch."""

    operation_id: str
    operation_type: OperationType
    status: OperationStatus
    result_summary: dict[str, Any]
    result: dict[str, JsonValue]
    links: dict[str, str] = Field(default_factory=dict)


class TablePage(Message):
    """Rows of trades or equity."""

    operation_id: str
    columns: list[str]
    items: list[dict[str, JsonValue]]
    total: int
    next_cursor: str | None = None


class SpecView(Message):
    """The resolved specification, in the form that a worker's start route takes."""

    spec: TrainingSpec | BacktestSpec = Field(discriminator="kind")


class CollectArtifacts(Message):
    """A round of garbage collection."""

    dry_run: bool = Field(default=False, description="remove nothing, say what would go")


class ArtifactsCollected(Message):
    """What the round found."""

    removed: int = Field(description="artifacts that went, or would go")
    removed_bytes: int
    waiting: int = Field(description="nothing refers to them, but not for as long as the grace")
    kept: int = Field(description="something refers to them")
    dry_run: bool
