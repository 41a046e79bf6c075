"""The state of a computation as plain values and arrays, and one file of bytes for it; nothing in it can run code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ktrdr.errors import InvalidInput

__all__ = ["Snapshot", "pack", "read_values", "unpack"]

_KINDS = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}
_HEAD = 8  # bytes that say how long the header is
_LONGEST_HEADER = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """``values`` are JSON: mappings, lists, strings, numbers (infinity and NaN allowed), None; ``arrays`` are of plain
    numbers."""

    values: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


def pack(snapshot: Snapshot) -> bytes:
    """The snapshot as a safetensors file with the values in its metadata; equal values in equal order, and equal arrays,
    give equal bytes.

    Raises
    ------
    InvalidInput
        If an array is of another kind than float64, float32, int64, int32, int8, uint8 and bool, or a value is not
        JSON.
    """
    try:
        values = json.dumps(snapshot.values, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"A snapshot's values must be JSON: {error}.") from None
    header: dict[str, Any] = {"__metadata__": {"values": values}}
    parts, place = [], 0
    for name, array in sorted(snapshot.arrays.items()):
        kind = _NAMES.get(array.dtype)
        if kind is None:
            raise InvalidInput(
                f"The array '{name}' of a snapshot is of {array.dtype}; accepted: {', '.join(map(str, _NAMES))}."
            )
        content = array.tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [place, place + len(content)],
        }
        parts.append(content)
        place += len(content)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join((len(head).to_bytes(_HEAD, "little"), head, *parts))


def unpack(content: bytes) -> Snapshot:
    """What :func:`pack` made.

    Raises
    ------
    InvalidInput
        If the bytes are something else.
    """
    try:
        start = _HEAD + int.from_bytes(content[:_HEAD], "little")
        header = json.loads(content[_HEAD:start])
        values = json.loads(header.pop("__metadata__")["values"])
        if not isinstance(values, dict):
            raise ValueError("its values are no mapping")
        data = memoryview(content)[start:]
        arrays = {name: _array(data, **entry) for name, entry in header.items()}
        used = sum(array.nbytes for array in arrays.values())
        if used != len(data):
            raise ValueError(f"{len(data):,} bytes of data for arrays of {used:,}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"These {len(content):,} bytes are not a snapshot: {error}.") from None
    return Snapshot(values, arrays)


def read_values(file: Path) -> Mapping[str, Any] | None:
    """The values of the snapshot in a file, without its arrays; None if it is absent or something else."""
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(_HEAD), "little")
            header = json.loads(content.read(length) if length <= _LONGEST_HEADER else b"")
        values = json.loads(header["__metadata__"]["values"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _array(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> npt.NDArray[Any]:
    """A copy of one array; nothing is allocated that the data does not hold."""
    first, last = data_offsets
    kind = np.dtype(_KINDS[dtype])
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, first)):
        raise ValueError("a size is no number of at least 0")
    if last - first != math.prod(shape) * kind.itemsize or last > len(data):
        raise ValueError("an array's place does not fit its shape")
    return np.frombuffer(data[first:last], kind).reshape(shape).copy()
