"""Messages about many operations at once: cancelling them, and the queue with its switch."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.protocol.messages import Message

__all__ = ["CancelOperations", "OperationsCancelled", "PausedType", "QueueChange", "QueueView"]

Unended = Literal["pending", "assigned", "running"]


class CancelOperations(Message):
    """Which operations to cancel; without a filter all that have not ended."""

    operation_type: OperationType | None = None
    status: list[Unended] | None = Field(
        default=None, min_length=1, description="only those that are in one of these now"
    )
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


class QueueChange(Message):
    """What to pause or to dispatch again; without a type all of it."""

    operation_type: OperationType | None = None


class PausedType(Message):
    """Nothing of this type is dispatched."""

    operation_type: OperationType
    since: AwareDatetime


class QueueView(Message):
    """The queue: what is paused, and the operations in the ledger counted by type and status."""

    paused: list[PausedType]
    operations: dict[OperationType, dict[OperationStatus, int]]
