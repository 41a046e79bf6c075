"""A snapshot's bytes: exact both ways, the same for the same, and nothing in them is ever run."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidInput
from ktrdr.snapshot import Snapshot, pack, unpack

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(2.5),
    "none": np.empty(0, np.int8),
    "values": np.array([math.nan, -0.0, math.inf]),
}


def test_it_comes_back_exactly() -> None:
    values = {"a": [1, 2.5, None, "ü\n", math.inf], "b": {"c": 0.1 + 0.2, "d": 2**64}}
    back = unpack(pack(Snapshot(values, ARRAYS)))
    assert back.values == values
    assert set(back.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert (back.arrays[name].dtype, back.arrays[name].shape) == (array.dtype, array.shape)
        assert back.arrays[name].tobytes() == array.tobytes()


def test_equal_snapshots_have_equal_bytes() -> None:
    one = pack(Snapshot({"a": 1, "b": 2}, ARRAYS))
    assert one == pack(Snapshot({"a": 1, "b": 2}, dict(reversed(ARRAYS.items()))))
    assert one != pack(Snapshot({"a": 1, "b": 3}, ARRAYS))


def test_objects_and_values_that_are_not_json_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'strange' of a snapshot is of object; accepted: float64, "):
        pack(Snapshot({}, {"strange": np.array([object()])}))
    with pytest.raises(InvalidInput, match="must be JSON"):
        pack(Snapshot({"x": object()}))


def test_it_is_a_safetensors_file() -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    read = numpy.load(pack(Snapshot({}, ARRAYS)))
    assert {name: array.tobytes() for name, array in read.items()} == {
        name: array.tobytes() for name, array in ARRAYS.items()
    }


def bytes_of(header: Any, data: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


META = {"__metadata__": {"values": "{}"}}


def entry(**changes: Any) -> dict[str, Any]:
    return {**META, "x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2], **changes}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"\x80\x04K\x01.",
        b"\xff" * 64,
        bytes_of(b"[" * 100_000),
        bytes_of([]),
        bytes_of({}),
        bytes_of({"__metadata__": {"values": "[1]"}}),
        bytes_of(META, b"more"),
        bytes_of(entry(), b"1"),
        bytes_of(entry(dtype="O"), b"12"),
        bytes_of(entry(shape=[3]), b"12"),
        bytes_of(entry(shape=[-1, -2]), b"12"),
        bytes_of(entry(shape=["2"]), b"12"),
        bytes_of(entry(shape=[2**60, 2**10], data_offsets=[0, 2**70]), b"12"),
        bytes_of(entry(data_offsets=[-2, 0]), b"12"),
        bytes_of(entry(data_offsets=[0]), b"12"),
        bytes_of(entry(more=1), b"12"),
        pack(Snapshot({}, ARRAYS))[:-1],
    ],
)
def test_other_bytes_are_no_snapshot(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a snapshot"):
        unpack(content)


@given(st.integers(0, len(pack(Snapshot({"a": 1}, ARRAYS))) - 1), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_refused_or_read_as_other_data_but_never_more(place: int, change: int) -> None:
    """Its digest refuses damage before; this is the second line: no other error, and no code."""
    content = bytearray(pack(Snapshot({"a": 1}, ARRAYS)))
    content[place] ^= change
    with contextlib.suppress(InvalidInput):
        unpack(bytes(content))
