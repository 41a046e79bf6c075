"""Inference: the same bits whatever is cut off behind and however the rows are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidModel
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.models.inference import BLOCK_ROWS, Classifier
from ktrdr.models.onnx_graph import build_onnx

ARCHITECTURE = MlpArchitecture(inputs=6, hidden_layers=(17, 5))
ROWS = 2 * BLOCK_ROWS + 777


def model() -> bytes:
    random = np.random.default_rng(3)
    shapes = ARCHITECTURE.parameter_shapes()
    return build_onnx(ARCHITECTURE, {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()})


MODEL = model()
VALUES = np.random.default_rng(1).normal(size=(ROWS, 6)).astype(np.float32)
ALL = Classifier(MODEL).probabilities(VALUES)


def test_probabilities_are_those_of_the_formula() -> None:
    random = np.random.default_rng(3)
    w = {n: random.normal(size=s).astype(np.float32) for n, s in ARCHITECTURE.parameter_shapes().items()}
    h = VALUES[:9].astype(np.float64)
    for i in range(3):
        h = h @ w[f"layers.{i}.weight"].T + w[f"layers.{i}.bias"]
        h = np.maximum(h, 0) if i < 2 else h
    e = np.exp(h - h.max(1, keepdims=True))
    np.testing.assert_allclose(ALL[:9], e / e.sum(1, keepdims=True), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, ROWS))
def test_a_prefix_gets_the_same_bits(rows: int) -> None:
    assert np.array_equal(Classifier(MODEL).probabilities(VALUES[:rows]), ALL[:rows])


@pytest.mark.parametrize("chunk_rows", [1, BLOCK_ROWS, 3000, 10 * ROWS])
@pytest.mark.parametrize("threads", [1, 2])
def test_chunks_and_threads_change_no_bit(chunk_rows: int, threads: int) -> None:
    out = np.empty((ROWS, 3), np.float32)
    done = list(Classifier(MODEL, threads=threads).fill(VALUES, out, chunk_rows=chunk_rows))
    assert np.array_equal(out, ALL)
    assert done == sorted(set(done))
    assert done[-1] == ROWS
    assert len(done) == (3 if chunk_rows <= BLOCK_ROWS else 2 if chunk_rows == 3000 else 1)


def test_no_rows_give_no_answers() -> None:
    assert Classifier(MODEL).probabilities(VALUES[:0]).shape == (0, 3)


def test_strided_features_are_taken_too() -> None:
    wide = np.asfortranarray(VALUES[:100])
    assert np.array_equal(Classifier(MODEL).probabilities(wide), ALL[:100])


def test_a_file_on_disk_answers_like_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(MODEL)
    assert np.array_equal(Classifier(file).probabilities(VALUES[:10]), ALL[:10])


def test_the_wrong_number_of_features_is_named() -> None:
    with pytest.raises(InvalidModel, match="takes 6 features, the strategy gives 5"):
        Classifier(MODEL).probabilities(VALUES[:, :5])


@pytest.mark.parametrize("content", [b"not a model", b"", MODEL[:200]])
def test_a_broken_file_is_an_invalid_model(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(InvalidModel, match=r"model\.onnx"):
        Classifier(file)


def with_fixed_rows(content: bytes, rows: int) -> bytes:
    """The same network, which refuses any call that has not exactly this many rows."""
    graph = onnx.load_from_string(content)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = rows
    return graph.SerializeToString()


@pytest.mark.parametrize("rows", [1, BLOCK_ROWS, BLOCK_ROWS + 1])
def test_the_runtime_only_ever_sees_whole_blocks(rows: int) -> None:
    strict = Classifier(with_fixed_rows(MODEL, BLOCK_ROWS))
    assert np.array_equal(strict.probabilities(VALUES[:rows]), ALL[:rows])
