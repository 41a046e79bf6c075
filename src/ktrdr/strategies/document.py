"""The strategy document as frozen objects: what the rest of ktrdr reads instead of YAML.

Objects of this module come from :func:`ktrdr.strategies.parse_strategy`, which has checked every value; nothing
here validates again. Every field corresponds to one key of ``docs/reference/strategy-document.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from ktrdr.fuzzy import LinguisticVariable
from ktrdr.timeframe import Timeframe

__all__ = [
    "BacktestConfig",
    "CostConfig",
    "DataSplit",
    "DecisionConfig",
    "EarlyStopping",
    "ForwardReturnLabels",
    "FuzzyInput",
    "FuzzySetUse",
    "IndicatorUse",
    "LabelConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RawInput",
    "ReduceOnPlateau",
    "SchedulerConfig",
    "SizingConfig",
    "StepDecay",
    "StopConfig",
    "Strategy",
    "TrainingConfig",
    "TrainingData",
    "TripleBarrierLabels",
    "ZigzagLabels",
]

Normalization = Literal["none", "zscore", "minmax"]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What the model learns from. ``base_timeframe`` is the one that is traded: decisions fall on its bars.

    ``start_date`` and ``end_date`` are both included; None means as far as the data goes.
    """

    symbols: tuple[str, ...]
    timeframes: tuple[Timeframe, ...]
    base_timeframe: Timeframe
    start_date: date | None = None
    end_date: date | None = None


@dataclass(frozen=True, slots=True)
class IndicatorUse:
    """One indicator of the catalog with its checked parameters, under the document's own name for it."""

    name: str
    type: str
    params: Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class FuzzySetUse:
    """A linguistic variable over one output of an indicator; ``output`` None means the primary one."""

    name: str
    indicator: str
    output: str | None
    variable: LinguisticVariable


@dataclass(frozen=True, slots=True)
class FuzzyInput:
    """All memberships of a fuzzy set, on each of ``timeframes``, as network inputs."""

    fuzzy_set: str
    timeframes: tuple[Timeframe, ...]


@dataclass(frozen=True, slots=True)
class RawInput:
    """An indicator's value itself as a network input, on each of ``timeframes``.

    ``normalization`` is fitted on the training rows only: ``zscore`` (x - mean) / std, ``minmax`` to [0, 1].
    """

    indicator: str
    output: str | None
    timeframes: tuple[Timeframe, ...]
    normalization: Normalization = "zscore"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A multi-layer perceptron from the features to the three classes."""

    type: Literal["mlp"] = "mlp"
    hidden_layers: tuple[int, ...] = (32, 16)
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class ZigzagLabels:
    """BUY in a rising, SELL in a falling leg of closes whose reversals are at least ``threshold`` (0.03 = 3 %).

    HOLD where the rest of the leg, from the next open to the pivot, is at most ``min_move``.
    """

    threshold: float = 0.03
    min_move: float = 0.0
    source: Literal["zigzag"] = "zigzag"


@dataclass(frozen=True, slots=True)
class TripleBarrierLabels:
    """BUY if the profit target, SELL if the stop is touched first; HOLD at time-out. Distances in ATRs."""

    profit_target_atr: float = 2.0
    stop_loss_atr: float = 2.0
    max_holding_bars: int = 20
    atr_period: int = 14
    source: Literal["triple_barrier"] = "triple_barrier"


@dataclass(frozen=True, slots=True)
class ForwardReturnLabels:
    """BUY above ``threshold``, SELL below ``-threshold``, of the return over ``horizon_bars``; else HOLD."""

    horizon_bars: int = 5
    threshold: float = 0.0
    source: Literal["forward_return"] = "forward_return"


LabelConfig = ZigzagLabels | TripleBarrierLabels | ForwardReturnLabels


@dataclass(frozen=True, slots=True)
class DataSplit:
    """Chronological shares that add up to 1; ``embargo`` is a share of all rows left out after each border."""

    train: float = 0.7
    validation: float = 0.15
    test: float = 0.15
    embargo: float = 0.01


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """``weight_decay`` is L2 for adam and sgd, decoupled for adamw; ``momentum`` is used by sgd alone."""

    type: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    momentum: float = 0.9


@dataclass(frozen=True, slots=True)
class ReduceOnPlateau:
    """Multiply the learning rate by ``factor`` after ``patience`` epochs without a lower validation loss."""

    patience: int = 5
    factor: float = 0.5
    min_learning_rate: float = 0.0
    type: Literal["reduce_on_plateau"] = "reduce_on_plateau"


@dataclass(frozen=True, slots=True)
class StepDecay:
    """Multiply the learning rate by ``factor`` after every ``step_epochs`` epochs."""

    step_epochs: int = 20
    factor: float = 0.5
    type: Literal["step"] = "step"


SchedulerConfig = ReduceOnPlateau | StepDecay


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Stop after ``patience`` epochs in which ``monitor`` did not improve by more than ``min_delta``."""

    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    patience: int = 10
    min_delta: float = 0.0


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Cross entropy; ``balanced`` weighs classes by inverse frequency, none above ``max_class_weight``."""

    type: Literal["cross_entropy"] = "cross_entropy"
    class_weights: Literal["none", "balanced"] = "none"
    max_class_weight: float = 10.0


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How the network is fitted."""

    labels: LabelConfig
    data_split: DataSplit = DataSplit()
    epochs: int = 50
    batch_size: int = 256
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig | None = None
    early_stopping: EarlyStopping | None = None
    loss: LossConfig = LossConfig()
    gradient_clip: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DecisionConfig:
    """From class probabilities to signals, and which signals may become entries."""

    output_format: Literal["classification"] = "classification"
    confidence_threshold: float = 0.0
    position_awareness: bool = True
    allow_short_from_flat: bool = False
    min_signal_separation_bars: int = 0


@dataclass(frozen=True, slots=True)
class SizingConfig:
    """How much one entry buys: the amount stands under the name of the type."""

    type: Literal["fraction", "units", "cash", "risk"] = "fraction"
    fraction: float = 1.0
    units: float | None = None
    cash: float | None = None
    risk: float | None = None
    lot_step: float = 1.0


@dataclass(frozen=True, slots=True)
class CostConfig:
    """What a fill costs: rates of the traded value, money per unit and per fill."""

    commission: float = 0.0
    commission_per_unit: float = 0.0
    commission_fixed: float = 0.0
    commission_minimum: float = 0.0
    slippage: float = 0.0
    slippage_bps: float = 0.0
    spread: Literal["none", "quotes"] = "none"


@dataclass(frozen=True, slots=True)
class StopConfig:
    """Exits without a signal, as rates of the entry price (0.05 = 5 %) or in ATRs; None means none."""

    stop_loss: float | None = None
    take_profit: float | None = None
    trailing_stop: float | None = None
    stop_loss_atr: float | None = None
    take_profit_atr: float | None = None
    trailing_stop_atr: float | None = None
    atr_period: int = 14
    max_holding_bars: int | None = None


@dataclass(frozen=True, slots=True)
class BacktestConfig:
    """The simulated account; see :meth:`Strategy.simulation_settings`."""

    initial_capital: float = 100_000.0
    fill: Literal["next_open"] = "next_open"
    sizing: SizingConfig = SizingConfig()
    costs: CostConfig = CostConfig()
    stops: StopConfig = StopConfig()
    reversal: Literal["flip", "close_then_open"] = "flip"
    at_end: Literal["close", "hold"] = "close"
    risk_free_rate: float = 0.0
    minimum_return: float = 0.0


@dataclass(frozen=True, slots=True)
class Strategy:
    """One checked strategy document.

    Mappings keep the order of the document, which is the order of features. ``text`` is the YAML that was parsed:
    parsing it again gives an equal Strategy.
    """

    name: str
    version: str
    description: str
    training_data: TrainingData
    indicators: Mapping[str, IndicatorUse]
    fuzzy_sets: Mapping[str, FuzzySetUse]
    nn_inputs: tuple[FuzzyInput | RawInput, ...]
    model: ModelConfig
    training: TrainingConfig
    decisions: DecisionConfig
    backtest: BacktestConfig
    text: str

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols to train on."""
        return self.training_data.symbols

    @property
    def timeframes(self) -> tuple[Timeframe, ...]:
        """Every timeframe the inputs need, the base one first, then as written."""
        base = self.training_data.base_timeframe
        return (base, *(t for t in self.training_data.timeframes if t != base))

    def simulation_settings(self) -> dict[str, Any]:
        """The plain nested values that ``ktrdr.backtesting.SimulationConfig.from_json`` reads.

        Position rules stand under ``decisions`` in the document and are part of the simulation, because they need
        the position, which stops can change.
        """
        settings = asdict(self.backtest)
        del settings["fill"]  # the simulator has one rule for fills
        settings["positions"] = {
            "position_awareness": self.decisions.position_awareness,
            "allow_short_from_flat": self.decisions.allow_short_from_flat,
            "min_signal_separation_bars": self.decisions.min_signal_separation_bars,
            "reversal": settings.pop("reversal"),
        }
        return settings

    @property
    def base_timeframe(self) -> Timeframe:
        """The timeframe that is traded."""
        return self.training_data.base_timeframe
