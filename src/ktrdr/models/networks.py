"""The network in torch: one flat parameter vector, and gradients written by hand because that is twice as fast.

A step of a small network costs more in bookkeeping (autograd's graph, one optimizer entry per tensor) than in
arithmetic. So all weights live in one vector, which the optimizer updates and the clip measures in one call each,
and :meth:`Mlp.backward` fills that vector's gradient directly. Tests hold it equal to autograd's.

Shape suffixes: ``B`` = rows of a batch, ``F`` = features, ``C`` = classes, ``H`` = units of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ktrdr.models.architecture import MlpArchitecture

__all__ = ["Mlp", "Weights"]

Weights = dict[str, npt.NDArray[np.float32]]
"""Parameters by name, as :meth:`MlpArchitecture.parameter_shapes` lists them."""


class Mlp:
    """A multi-layer perceptron over one flat parameter vector ``flat`` with its ``gradient``.

    Weights start as in ``torch.nn.Linear``: uniform in +-1/sqrt(inputs). Randomness is NumPy's, so that a seed gives
    the same start, order and dropout on every device, and because torch draws a dropout mask ten times slower.
    """

    def __init__(
        self, architecture: MlpArchitecture, random: np.random.Generator, device: torch.device | str = "cpu"
    ) -> None:
        self.architecture = architecture
        start = [
            random.uniform(-1.0 / math.sqrt(inputs), 1.0 / math.sqrt(inputs), size).astype(np.float32)
            for _, inputs, outputs in architecture.layers()
            for size in (inputs * outputs, outputs)
        ]
        self.flat = torch.nn.Parameter(torch.from_numpy(np.concatenate(start)).to(device))
        self.gradient = torch.zeros_like(self.flat.data)
        self._values = self._views(self.flat.data)
        self._gradients = self._views(self.gradient)

    def _views(self, flat: Tensor) -> list[Tensor]:
        shapes = list(self.architecture.parameter_shapes().values())
        ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)]).tolist()
        return [flat[a:b].view(shape) for (a, b), shape in zip(pairwise(ends), shapes, strict=True)]

    def logits(self, x_BF: Tensor) -> Tensor:
        """Logits (B, C) without dropout. Differentiable with respect to ``flat``."""
        values = self._views(self.flat)
        h = x_BF
        for i in range(0, len(values), 2):
            if i:
                h = self._activate(h)
            h = functional.linear(h, values[i], values[i + 1])
        return h

    def backward(self, x_BF: Tensor, target_BC: Tensor, random: np.random.Generator | None = None) -> Tensor:
        """Loss of one batch in training mode; ``gradient`` holds its gradient afterwards. Call under ``no_grad``.

        Parameters
        ----------
        x_BF
            Features.
        target_BC
            One-hot classes times the class weight. The loss is ``-sum(target * log p) / sum(target)``, which is
            torch's weighted cross entropy.
        random
            Source of the dropout masks; without one there is no dropout.
        """
        inputs, activated, masks, logits_BC = self._forward(x_BF, random)
        log_p_BC = functional.log_softmax(logits_BC, 1)
        total = target_BC.sum()
        loss = -(target_BC * log_p_BC).sum() / total
        delta = (log_p_BC.exp_() * target_BC.sum(1, keepdim=True) - target_BC) / total
        for i in reversed(range(len(inputs))):
            torch.mm(delta.t(), inputs[i], out=self._gradients[2 * i])
            torch.sum(delta, 0, out=self._gradients[2 * i + 1])
            if i:
                delta = torch.mm(delta, self._values[2 * i])
                if masks:
                    delta *= masks[i - 1]
                delta = self._activation_gradient(delta, *activated[i - 1])
        return loss

    def _forward(
        self, x_BF: Tensor, random: np.random.Generator | None
    ) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]], list[Tensor], Tensor]:
        """Inputs of each linear layer, each activation's argument and value, the dropout masks, the logits."""
        inputs, activated, masks = [x_BF], [], []
        last = len(self._values) - 2
        for i in range(0, last, 2):
            z = torch.addmm(self._values[i + 1], inputs[-1], self._values[i].t())
            h = self._activate(z)
            activated.append((z, h))
            if random is not None and self.architecture.dropout > 0.0:
                mask = self._mask(h, random)
                masks.append(mask)
                h = h * mask
            inputs.append(h)
        logits_BC = torch.addmm(self._values[last + 1], inputs[-1], self._values[last].t())
        return inputs, activated, masks, logits_BC

    def _mask(self, h_BH: Tensor, random: np.random.Generator) -> Tensor:
        """0 with the probability ``dropout`` (to 1/65536), else 1/(1 - dropout)."""
        bound = round(65_536 * self.architecture.dropout)
        kept = random.integers(0, 65_536, h_BH.shape, dtype=np.uint16) >= bound
        mask = np.multiply(kept, 65_536 / (65_536 - bound), dtype=np.float32)
        return torch.from_numpy(mask).to(h_BH.device)

    def _activate(self, z: Tensor) -> Tensor:
        match self.architecture.activation:
            case "relu":
                return functional.relu(z)
            case "tanh":
                return torch.tanh(z)
            case "gelu":
                return functional.gelu(z)

    def _activation_gradient(self, delta: Tensor, z: Tensor, h: Tensor) -> Tensor:
        """``delta`` times the derivative of the activation, whose argument was ``z`` and whose value is ``h``."""
        match self.architecture.activation:
            case "relu":
                return torch.ops.aten.threshold_backward(delta, h, 0)  # type: ignore[no-any-return]
            case "tanh":
                return torch.ops.aten.tanh_backward(delta, h)  # type: ignore[no-any-return]
            case "gelu":
                return torch.ops.aten.gelu_backward(delta, z)  # type: ignore[no-any-return]

    def weights(self) -> Weights:
        """A copy of all parameters as NumPy arrays; later steps do not change it."""
        copies = [view.detach().cpu().numpy().copy() for view in self._values]
        return dict(zip(self.architecture.parameter_shapes(), copies, strict=True))

    def load_weights(self, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Copy parameters in; shapes must be those of the architecture."""
        with torch.no_grad():
            for name, view in zip(self.architecture.parameter_shapes(), self._values, strict=True):
                view.copy_(torch.from_numpy(np.ascontiguousarray(weights[name], dtype=np.float32)))
