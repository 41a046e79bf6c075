"""Asking a trained network with onnxruntime: no torch, many bars at a time, the same bits however they are cut.

Shape suffixes: ``T`` = bars, ``F`` = features, ``C`` = classes.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from ktrdr.errors import InvalidModel

__all__ = ["BLOCK_ROWS", "Classifier"]

BLOCK_ROWS = 2048
"""Rows of one call into the runtime; the fastest of those measured (the activations stay in the cache)."""

_UNREADABLE = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NoSuchFile,
    runtime_errors.NotImplemented,
    RuntimeError,
)

Float32Array = npt.NDArray[np.float32]


class Classifier:
    """A network that turns rows of features into class probabilities.

    Parameters
    ----------
    model
        The ``model.onnx`` of a bundle: its path or its bytes.
    threads
        Threads of the runtime. 1 is the fastest for networks of this size.

    Raises
    ------
    InvalidModel
        If the file is not an ONNX model that this runtime can read.

    Notes
    -----
    Every call into the runtime has exactly :data:`BLOCK_ROWS` rows and row ``t`` always has place
    ``t % BLOCK_ROWS`` in its call; the last one is filled up with zeros. So the probabilities of a row are
    bit-identical for every later end of the array and every chunk size, on any CPU: kernels that treat a short
    batch or its last rows differently never get to see one.
    """

    def __init__(self, model: Path | bytes, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except _UNREADABLE as error:
            raise InvalidModel(f"The model.onnx of the bundle cannot be read: {error}") from None
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self.features = int(self._session.get_inputs()[0].shape[1])
        self.classes = int(self._session.get_outputs()[0].shape[1])

    def probabilities(self, values_TF: Float32Array) -> Float32Array:
        """Class probabilities (T, C) of every row; a row with NaN gives no defined result, so mask it afterwards."""
        out_TC = np.empty((len(values_TF), self.classes), np.float32)
        for _ in self.fill(values_TF, out_TC):
            pass
        return out_TC

    def fill(
        self, values_TF: Float32Array, out_TC: Float32Array, *, chunk_rows: int = 65_536
    ) -> Generator[int, None, None]:
        """Write the probabilities of all rows to ``out_TC``, yielding the number of finished rows per chunk.

        ``chunk_rows`` is rounded up to whole blocks; it changes when the generator yields, never what it writes.

        Raises
        ------
        InvalidModel
            If the number of features is not the network's.
        """
        if values_TF.ndim != 2 or values_TF.shape[1] != self.features:
            raise InvalidModel(
                f"The model takes {self.features} features, the strategy gives {values_TF.shape[-1]}. "
                "The bundle was trained with another strategy; train again."
            )
        blocks_per_chunk = max(1, -(-chunk_rows // BLOCK_ROWS))
        rows = len(values_TF)
        for number, first in enumerate(range(0, rows, BLOCK_ROWS), start=1):
            self._block(values_TF[first : first + BLOCK_ROWS], out_TC[first : first + BLOCK_ROWS])
            if number % blocks_per_chunk == 0 or first + BLOCK_ROWS >= rows:
                yield min(rows, first + BLOCK_ROWS)

    def _block(self, values_TF: Float32Array, out_TC: Float32Array) -> None:
        rows = len(values_TF)
        if rows < BLOCK_ROWS:
            padded = np.zeros((BLOCK_ROWS, self.features), np.float32)
            padded[:rows] = values_TF
            values_TF = padded
        block = np.ascontiguousarray(values_TF, dtype=np.float32)
        (answer,) = self._session.run([self._output], {self._input: block})
        out_TC[:] = answer[:rows]
