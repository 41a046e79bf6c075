"""A body that is no JSON: where it stops being it, since a pointer cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["not_json"]


def not_json(fault: Mapping[str, Any]) -> str:
    """What the framework's fault of type ``json_invalid`` says, in words."""
    why = str(fault.get("ctx", {}).get("error", "")) or str(fault["msg"])
    return f"the body is not JSON: {why}, at character {fault['loc'][-1]}"
