"""Networks: the hand-written gradient against autograd, and torch against the ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ktrdr.models.architecture import CLASSES, MlpArchitecture
from ktrdr.models.inference import Classifier
from ktrdr.models.networks import Mlp
from ktrdr.models.onnx_graph import build_onnx

ARCHITECTURES = st.builds(
    MlpArchitecture,
    inputs=st.integers(1, 7),
    hidden_layers=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    activation=st.sampled_from(["relu", "tanh", "gelu"]),
    dropout=st.just(0.0),
    outputs=st.integers(2, 4),
)


def batch(architecture: MlpArchitecture, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, architecture.inputs)).astype(np.float32)
    weight = random.uniform(0.2, 3.0, architecture.outputs).astype(np.float32)
    y = random.integers(0, architecture.outputs, rows)
    return torch.from_numpy(x), torch.from_numpy(np.eye(architecture.outputs, dtype=np.float32)[y] * weight)


def network(architecture: MlpArchitecture, seed: int = 1) -> Mlp:
    return Mlp(architecture, np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(ARCHITECTURES, st.integers(1, 40), st.integers(0, 1000))
def test_the_gradient_written_by_hand_is_autograds(
    architecture: MlpArchitecture, rows: int, seed: int
) -> None:
    net = network(architecture, seed)
    x, target = batch(architecture, rows, seed)
    loss = -(functional.log_softmax(net.logits(x), 1) * target).sum() / target.sum()
    (expected,) = torch.autograd.grad(loss, net.flat)
    with torch.no_grad():
        by_hand = net.backward(x, target)
    torch.testing.assert_close(by_hand, loss.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(net.gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_is_torchs_weighted_cross_entropy() -> None:
    architecture = MlpArchitecture(inputs=4, hidden_layers=(5,))
    net = network(architecture)
    x, _ = batch(architecture, 32, 3)
    y = torch.from_numpy(np.random.default_rng(4).integers(0, 3, 32))
    weight = torch.tensor([0.5, 1.0, 4.0])
    with torch.no_grad():
        loss = net.backward(x, functional.one_hot(y, 3).float() * weight)
        expected = functional.cross_entropy(net.logits(x), y, weight=weight)
    torch.testing.assert_close(loss, expected)


class _MasksOf:
    """Replays the masks that the network draws, so that autograd can be given the same ones."""

    def __init__(self, seed: int, dropout: float) -> None:
        self.random, self.bound = np.random.default_rng(seed), round(65_536 * dropout)

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        kept = self.random.integers(0, 65_536, tuple(h.shape), dtype=np.uint16) >= self.bound
        return h * torch.from_numpy(kept.astype(np.float32)) * (65_536 / (65_536 - self.bound))


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_the_gradient_under_dropout_is_autograds_with_the_same_masks(activation: str) -> None:
    architecture = MlpArchitecture(inputs=5, hidden_layers=(16, 8), activation=activation, dropout=0.3)
    net = network(architecture)
    x, target = batch(architecture, 64, 5)
    values, masks = net._views(net.flat), _MasksOf(9, 0.3)
    act = {"relu": functional.relu, "tanh": torch.tanh, "gelu": functional.gelu}[activation]
    h = masks(act(functional.linear(x, values[0], values[1])))
    h = masks(act(functional.linear(h, values[2], values[3])))
    logits = functional.linear(h, values[4], values[5])
    loss = -(functional.log_softmax(logits, 1) * target).sum() / target.sum()
    (expected,) = torch.autograd.grad(loss, net.flat)
    with torch.no_grad():
        by_hand = net.backward(x, target, np.random.default_rng(9))
    torch.testing.assert_close(by_hand, loss.detach())
    torch.testing.assert_close(net.gradient, expected, rtol=1e-4, atol=1e-6)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    net = network(MlpArchitecture(inputs=1, dropout=0.2))
    mask = net._mask(torch.zeros(400, 500), np.random.default_rng(1))
    assert float((mask == 0).float().mean()) == pytest.approx(0.2, abs=0.005)
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.005)


def test_a_seed_gives_the_same_start_and_starts_lie_in_torchs_range() -> None:
    architecture = MlpArchitecture(inputs=9, hidden_layers=(4,))
    one, same, other = network(architecture, 1), network(architecture, 1), network(architecture, 2)
    assert torch.equal(one.flat, same.flat)
    assert not torch.equal(one.flat, other.flat)
    first = one.weights()["layers.0.weight"]
    assert np.abs(first).max() <= 1 / 3 < np.abs(one.weights()["layers.1.weight"]).max() * 1.5


def test_weights_are_copies_and_can_be_loaded_back() -> None:
    net = network(MlpArchitecture(inputs=3, hidden_layers=(2,)))
    before = net.weights()
    with torch.no_grad():
        net.flat.zero_()
    assert all(np.any(value != 0) for value in before.values())
    net.load_weights(before)
    assert all(np.array_equal(net.weights()[name], value) for name, value in before.items())


@settings(max_examples=30, deadline=None)
@given(ARCHITECTURES, st.integers(0, 1000))
def test_the_onnx_graph_answers_what_torch_answers(architecture: MlpArchitecture, seed: int) -> None:
    net = network(architecture, seed)
    x, _ = batch(architecture, 50, seed)
    with torch.no_grad():
        expected = torch.softmax(net.logits(x), 1).numpy()
    answer = Classifier(build_onnx(architecture, net.weights())).probabilities(x.numpy())
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)


def test_the_onnx_file_is_self_contained_and_always_the_same_bytes() -> None:
    architecture = MlpArchitecture(inputs=12, hidden_layers=(64, 32))
    weights = network(architecture).weights()
    content = build_onnx(architecture, weights)
    assert content == build_onnx(architecture, dict(reversed(weights.items())))
    model = onnx.load_from_string(content)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu", "Gemm", "Relu", "Gemm", "Softmax"]


def test_class_indices_mean_the_same_in_labels_and_in_models() -> None:
    from ktrdr.datasets import labels

    assert labels.CLASSES == CLASSES
    assert (labels.BUY, labels.HOLD, labels.SELL) == (0, 1, 2)
