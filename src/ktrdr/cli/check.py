"""What one check of ``ktrdr doctor`` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LOCAL_S", "Check", "Status"]

Status = Literal["ok", "warn", "fail"]
LOCAL_S = 3.0  # how long a check waits for something on this machine


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and what to do about it (nothing where it is ok)."""

    name: str
    status: Status
    detail: str
    advice: str = ""
