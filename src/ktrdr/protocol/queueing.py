"""Messages about many operations at once."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from ktrdr.operations.model import OperationType
from ktrdr.protocol.messages import Message

__all__ = ["CancelOperations", "OperationsCancelled"]

Unended = Literal["pending", "assigned", "running"]


class CancelOperations(Message):
    """Which operations to cancel; without a filter all that have not ended."""

    operation_type: OperationType | None = None
    status: list[Unended] = Field(default=[], description="only those that are in one of these now")
    before: AwareDatetime | None = Field(
        default=None, description="only those submitted before; default: before this request came"
    )


class OperationsCancelled(Message):
    """``cancelled`` have ended by this request, ``cancelling`` end within the grace; those that were asked before count
    in neither. While ``more`` is true there are others: repeat the request, with ``before`` of this answer."""

    cancelled: int
    cancelling: int
    more: bool
    before: AwareDatetime
