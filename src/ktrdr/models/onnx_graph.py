"""The network as an ONNX graph, built node by node: milliseconds, no torch exporter, and always the same bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from ktrdr.models.architecture import MlpArchitecture

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "build_onnx"]

INPUT_NAME = "features"
OUTPUT_NAME = "probabilities"

_OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # the oldest that carries this opset, so that older runtimes can read the file
_OPERATORS = {"relu": "Relu", "tanh": "Tanh", "gelu": "Gelu"}


def build_onnx(architecture: MlpArchitecture, weights: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """A self-contained ONNX file: ``features`` (rows, F) float32 -> ``probabilities`` (rows, C) float32.

    Parameters
    ----------
    architecture
        The network; dropout is absent here, as it always is when a network is asked.
    weights
        Parameters by name, of the shapes of ``architecture.parameter_shapes()``.

    Returns
    -------
    bytes
        Equal for equal arguments; the softmax is part of the graph, the weights are inside.
    """
    initialisers = [
        numpy_helper.from_array(np.ascontiguousarray(weights[name], dtype=np.float32).reshape(shape), name)
        for name, shape in architecture.parameter_shapes().items()
    ]
    graph = helper.make_graph(
        _nodes(architecture),
        "ktrdr-mlp",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["rows", architecture.inputs])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["rows", architecture.outputs])],
        initialisers,
    )
    model: ModelProto = helper.make_model(
        graph,
        producer_name="ktrdr",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _nodes(architecture: MlpArchitecture) -> list[NodeProto]:
    operator = _OPERATORS[architecture.activation]
    names = [name for name, _, _ in architecture.layers()]
    nodes, value = [], INPUT_NAME
    for i, name in enumerate(names):
        nodes.append(
            helper.make_node("Gemm", [value, f"{name}.weight", f"{name}.bias"], [f"{name}.linear"], transB=1)
        )
        value = f"{name}.linear"
        if i < len(names) - 1:
            nodes.append(helper.make_node(operator, [value], [f"{name}.{operator.lower()}"]))
            value = f"{name}.{operator.lower()}"
    nodes.append(helper.make_node("Softmax", [value], [OUTPUT_NAME], axis=1))
    return nodes
