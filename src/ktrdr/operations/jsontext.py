"""Canonical JSON text: sorted keys, no blanks; what the ledger stores and the bridge passes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["dump", "dump_ascii", "plain_text"]


def plain_text(text: str) -> str:
    """The text with ``?`` for every lone surrogate, which UTF-8 and JSON readers lack.

    They come from file names and messages of the operating system; a message that holds one could never be sent.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def dump(value: Any) -> str:
    """Canonical JSON text; equal values give equal text.

    NaN and the infinities have no JSON form and become null: a diverged loss must not make a ledger refuse the
    message that tells of it. NumPy scalars become Python's, and text is :func:`plain_text`.

    Raises
    ------
    TypeError
        If a value has no JSON form.
    """
    return plain_text(_encode(value, ascii_only=False))


def dump_ascii(value: Any) -> bytes:
    """As :func:`dump`, with every character beyond ASCII escaped: one byte per character."""
    text = _encode(value, ascii_only=True)
    if "\\ud" in text:  # a surrogate; in pairs they are whole characters, alone they are none
        text = json.dumps(json.loads(dump(value)), separators=(",", ":"))
    return text.encode("ascii")


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
