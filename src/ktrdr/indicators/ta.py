"""TA-Lib's functions, loaded at the first call: importing ``talib`` imports pandas (0.4 s, 60 MB).

A strategy document is checked against the catalog without computing anything, so neither the backend nor the
command line should pay for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """The function of TA-Lib called ``name``, such as ``RSI``."""
    if name.startswith("_"):
        raise AttributeError(name)
    return getattr(import_module("talib"), name)
