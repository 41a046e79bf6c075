"""The shape of a network, as plain values: enough to build it in torch, as an ONNX graph, or to read its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CLASSES", "Activation", "MlpArchitecture"]

Activation = Literal["relu", "tanh", "gelu"]
CLASSES = ("BUY", "HOLD", "SELL")
"""Class names by index; the index is the one of labels and of the network's outputs."""


class MlpArchitecture(BaseModel):
    """A multi-layer perceptron: ``inputs`` -> each hidden layer with ``activation`` and ``dropout`` -> ``outputs``.

    The output layer is linear (logits). ``gelu`` is the exact one, x * Phi(x).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["mlp"] = "mlp"
    inputs: int = Field(ge=1)
    hidden_layers: tuple[int, ...] = ()
    activation: Activation = "relu"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    outputs: int = Field(default=len(CLASSES), ge=2)

    def layers(self) -> Iterator[tuple[str, int, int]]:
        """Name, inputs and outputs of each linear layer, from the features to the logits."""
        widths = (self.inputs, *self.hidden_layers, self.outputs)
        for i in range(len(widths) - 1):
            yield f"layers.{i}", widths[i], widths[i + 1]

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by name, in storage order: weight (outputs, inputs), then bias (outputs,)."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, inputs, outputs in self.layers():
            shapes[f"{name}.weight"] = (outputs, inputs)
            shapes[f"{name}.bias"] = (outputs,)
        return shapes
