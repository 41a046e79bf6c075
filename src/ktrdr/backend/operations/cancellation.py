"""Cancelling many operations by one request."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from ktrdr.backend.operations.service import OperationsService
from ktrdr.clock import Clock
from ktrdr.errors import NotFound
from ktrdr.operations.events import CancelRequested
from ktrdr.operations.model import OperationStatus
from ktrdr.operations.paging import cursor_before
from ktrdr.operations.store import OperationQuery
from ktrdr.protocol.queueing import CancelOperations, OperationsCancelled

__all__ = ["cancel_many"]

_AT_MOST = 1_000  # by one request, so that it answers in time
# What waits goes first, because each running one that ends makes room for one of them; all at once in the end, because
# what moves between two looks (a worker gives it back, another takes it) may be in neither.
_LOOKS = (
    (OperationStatus.PENDING,),
    (OperationStatus.ASSIGNED, OperationStatus.RUNNING),
    (OperationStatus.PENDING, OperationStatus.ASSIGNED, OperationStatus.RUNNING),
)
_MICROSECOND = timedelta(microseconds=1)


async def cancel_many(
    operations: OperationsService, clock: Clock, request: CancelOperations, *, limit: int = _AT_MOST
) -> OperationsCancelled:
    """Ask for the end of at most ``limit`` operations that fit the request; repeating it is no error."""
    # what was submitted in the same microsecond is meant, too
    until = request.before or clock.now() + _MICROSECOND
    ends: Counter[OperationStatus | None] = Counter()
    more = False
    for look in _LOOKS:
        statuses = tuple(status for status in look if not request.status or status.value in request.status)
        if more or not statuses:
            continue
        left = limit - ends.total()
        page = await operations.store.page(
            OperationQuery(
                statuses=statuses,
                operation_type=request.operation_type,
                limit=min(left + 1, limit),
                cursor=cursor_before(until),
            )
        )
        chosen = page.operations[:left]
        more = page.next_cursor is not None or len(chosen) < len(page.operations)
        ends.update(await asyncio.gather(*(_cancel(operations, found.operation_id) for found in chosen)))
    return OperationsCancelled(
        cancelled=ends[OperationStatus.CANCELLED],
        cancelling=ends[OperationStatus.CANCELLING],
        more=more,
        before=until,
    )


async def _cancel(operations: OperationsService, operation_id: str) -> OperationStatus | None:
    """The status that the request brought about, or None if somebody else was faster."""
    try:
        transition = await operations.apply(operation_id, CancelRequested())
    except NotFound:
        return None
    return transition.operation.status if transition.outcome == "changed" else None
