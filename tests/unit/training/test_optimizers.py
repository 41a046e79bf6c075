"""The flat optimizers against torch's own."""

from __future__ import annotations

import pytest
import torch

from ktrdr.strategies.document import OptimizerConfig
from ktrdr.training.optimizers import FlatOptimizer


def reference(config: OptimizerConfig, values: torch.nn.Parameter) -> torch.optim.Optimizer:
    kwargs = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "foreach": False}
    match config.type:
        case "adam":
            return torch.optim.Adam([values], **kwargs)
        case "adamw":
            return torch.optim.AdamW([values], **kwargs)
        case "sgd":
            return torch.optim.SGD([values], momentum=config.momentum, **kwargs)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize(("kind", "momentum"), [("adam", 0.9), ("adamw", 0.9), ("sgd", 0.0), ("sgd", 0.9)])
def test_thirty_steps_are_torchs_to_the_last_bit(kind: str, momentum: float, weight_decay: float) -> None:
    config = OptimizerConfig(kind, 0.01, weight_decay, momentum)
    random = torch.Generator().manual_seed(1)
    start = torch.randn(257, generator=random)
    expected = torch.nn.Parameter(start.clone())
    theirs = reference(config, expected)
    values, gradient = start.clone(), torch.zeros(257)
    ours = FlatOptimizer.of(config, values, gradient)
    for step in range(30):
        gradient.copy_(torch.randn(257, generator=random))
        expected.grad = gradient.clone()
        rate = 0.01 / (1 + step)
        theirs.param_groups[0]["lr"] = rate
        theirs.step()
        ours.step(rate)
    assert torch.equal(values, expected.data)
    assert not torch.equal(values, start)
