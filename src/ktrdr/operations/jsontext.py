"""Canonical JSON text: sorted keys, no blanks; what the ledger stores and the bridge passes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["dump", "dump_ascii"]


def dump(value: Any) -> str:
    """Canonical JSON text; equal values give equal text.

    NaN and the infinities have no JSON form and become null: a diverged loss must not make a ledger refuse the
    message that tells of it. NumPy scalars become Python's.

    Raises
    ------
    TypeError
        If a value has no JSON form.
    """
    return _encode(value, ascii_only=False)


def dump_ascii(value: Any) -> bytes:
    """As :func:`dump`, with every character beyond ASCII escaped: one byte per character."""
    return _encode(value, ascii_only=True).encode("ascii")


def _encode(value: Any, *, ascii_only: bool) -> str:
    try:
        return _dumps(value, ascii_only)
    except ValueError:  # a number that is not finite somewhere inside
        return _dumps(_finite(value), ascii_only)


def _dumps(value: Any, ascii_only: bool) -> str:
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=ascii_only,
        allow_nan=False,
        default=_plain,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    item = getattr(value, "item", None)  # NumPy scalars, without importing NumPy
    if callable(item):
        return item()
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r:.80}")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
