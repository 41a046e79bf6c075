"""The keys of ``model`` and ``training``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ktrdr.strategies.document import (
    DataSplit,
    EarlyStopping,
    ForwardReturnLabels,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ReduceOnPlateau,
    StepDecay,
    TrainingConfig,
    TripleBarrierLabels,
    ZigzagLabels,
)
from ktrdr.strategies.kinds import Choice, Number, Optional, Whole
from ktrdr.strategies.sections import Key, ListOf, Section, Variant

__all__ = ["MODEL", "TRAINING"]


def _model(architecture: Mapping[str, Any] | None = None, **given: Any) -> ModelConfig:
    return ModelConfig(**given, **(architecture or {}))


MODEL = Section(
    _model,
    (
        Key("type", Choice(("mlp",)), "A multi-layer perceptron.", True),
        Key(
            "architecture",
            Section(
                dict,
                (
                    Key(
                        "hidden_layers",
                        ListOf(Whole(1, 4096), least=1, most=16),
                        "Neurons of each hidden layer.",
                        default=list(ModelConfig().hidden_layers),
                    ),
                    Key(
                        "activation",
                        Choice(("relu", "tanh", "gelu")),
                        "What follows each hidden layer.",
                        default=ModelConfig().activation,
                    ),
                    Key(
                        "dropout",
                        Number(least=0, below=1),
                        "Share of neurons switched off in each training step.",
                        default=ModelConfig().dropout,
                    ),
                ),
            ),
            "Shape of the network.",
            default={},
        ),
    ),
)


_LABELS = Variant(
    "source",
    "What the network learns to say at the close of a bar; see the page on labels.",
    {
        "zigzag": Section(
            ZigzagLabels,
            (
                Key(
                    "threshold", Number(above=0, below=1), "Reversal that ends a leg, as a rate (0.03 = 3 %)."
                ),
                Key("min_move", Number(least=0, below=1), "HOLD where no more than this is left of the leg."),
            ),
        ),
        "triple_barrier": Section(
            TripleBarrierLabels,
            (
                Key(
                    "profit_target_atr", Number(above=0, most=100), "Upper barrier above the entry, in ATRs."
                ),
                Key("stop_loss_atr", Number(above=0, most=100), "Lower barrier below the entry, in ATRs."),
                Key("max_holding_bars", Whole(1, 100_000), "Bars until the time-out, which is HOLD."),
                Key("atr_period", Whole(1, 1000), "Period of the ATR."),
            ),
        ),
        "forward_return": Section(
            ForwardReturnLabels,
            (
                Key("horizon_bars", Whole(1, 100_000), "Bars from entry to exit."),
                Key(
                    "threshold", Number(least=0, below=1), "BUY above it, SELL below its negative, else HOLD."
                ),
            ),
        ),
    },
)


def _shares_add_up(split: DataSplit) -> list[tuple[str, str]]:
    total = split.train + split.validation + split.test
    return (
        [] if abs(total - 1) < 1e-9 else [("train", f"train, validation and test add up to {total:g}, not 1")]
    )


_DATA_SPLIT = Section(
    DataSplit,
    (
        Key(
            "train", Number(above=0, below=1), "Share of the rows, the earliest, that weights are fitted on."
        ),
        Key(
            "validation", Number(above=0, below=1), "Share that stops the training and picks the best epoch."
        ),
        Key("test", Number(least=0, below=1), "Share, the latest, that is only reported."),
        Key("embargo", Number(least=0, below=0.5), "Share of all rows left out after each border."),
    ),
    _shares_add_up,
)

_RATE = Key("learning_rate", Number(above=0, most=10), "Step size.")
_DECAY = "Pull of the weights to zero: "
_OPTIMIZER = Variant(
    "type",
    "How weights are updated.",
    {
        "adam": Section(
            OptimizerConfig,
            (_RATE, Key("weight_decay", Number(least=0, most=1), f"{_DECAY}an L2 term in the gradient.")),
            fixed={"type": "adam"},
        ),
        "adamw": Section(
            OptimizerConfig,
            (_RATE, Key("weight_decay", Number(least=0, most=1), f"{_DECAY}decoupled from the gradient.")),
            fixed={"type": "adamw"},
        ),
        "sgd": Section(
            OptimizerConfig,
            (
                _RATE,
                Key("weight_decay", Number(least=0, most=1), f"{_DECAY}an L2 term in the gradient."),
                Key("momentum", Number(least=0, below=1), "Share of the last step that is kept."),
            ),
            fixed={"type": "sgd"},
        ),
    },
    default="adam",
)

_SCHEDULER = Variant(
    "type",
    "How the learning rate falls.",
    {
        "none": Section(lambda: None, ()),
        "reduce_on_plateau": Section(
            ReduceOnPlateau,
            (
                Key("patience", Whole(1, 100_000), "Epochs without a lower validation loss before it falls."),
                Key("factor", Number(above=0, below=1), "What it is multiplied by."),
                Key("min_learning_rate", Number(least=0, most=10), "Where it stops falling."),
            ),
        ),
        "step": Section(
            StepDecay,
            (
                Key("step_epochs", Whole(1, 100_000), "Epochs between falls."),
                Key("factor", Number(above=0, below=1), "What it is multiplied by."),
            ),
        ),
    },
)

_EARLY_STOPPING = Section(
    EarlyStopping,
    (
        Key("monitor", Choice(("val_loss", "val_accuracy")), "What has to improve."),
        Key("patience", Whole(1, 100_000), "Epochs without improvement before training stops."),
        Key("min_delta", Number(least=0, below=1_000), "A smaller change is no improvement."),
    ),
)

_WEIGHTS = Variant(
    "class_weights",
    "`none`: every row counts the same. `balanced`: classes count the same.",
    {
        "none": Section(
            LossConfig,
            (Key("type", Choice(("cross_entropy",)), "Cross entropy of the three classes."),),
            fixed={"class_weights": "none"},
        ),
        "balanced": Section(
            LossConfig,
            (
                Key("type", Choice(("cross_entropy",)), "Cross entropy of the three classes."),
                Key(
                    "max_class_weight", Number(least=1, most=1_000), "No class counts more than this per row."
                ),
            ),
            fixed={"class_weights": "balanced"},
        ),
    },
    default="none",
)

TRAINING = Section(
    TrainingConfig,
    (
        Key("labels", _LABELS, "What the right answer would have been."),
        Key("data_split", _DATA_SPLIT, "How rows are divided, in order of time."),
        Key("epochs", Whole(1, 100_000), "Passes over the training rows at most."),
        Key("batch_size", Whole(1, 1_000_000), "Rows per step."),
        Key("optimizer", _OPTIMIZER, "How weights are updated."),
        Key("scheduler", Optional(_SCHEDULER), "How the learning rate falls; `null`: it does not."),
        Key("early_stopping", Optional(_EARLY_STOPPING), "When to stop before `epochs`; `null`: never."),
        Key("loss", _WEIGHTS, "What is minimised."),
        Key(
            "gradient_clip",
            Optional(Number(above=0, most=1_000_000)),
            "Largest norm of the gradient; `null`: any.",
        ),
        Key("seed", Whole(0, 2**32 - 1), "Initial weights, shuffling and dropout follow from it."),
    ),
)
