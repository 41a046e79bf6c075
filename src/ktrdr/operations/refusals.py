"""What every ledger refuses, said in the same words."""

from __future__ import annotations

from ktrdr.errors import Conflict
from ktrdr.operations.model import Operation, OperationStatus

__all__ = ["id_taken", "not_terminal", "same_submission"]


def same_submission(earlier: Operation, again: Operation) -> Operation:
    """The earlier operation, if a submission with the same idempotency key is the same request.

    The same request may mean something else by now: it takes the newest model, say, and there is a newer one. What
    an older ktrdr recorded is known by its specification only.

    Raises
    ------
    Conflict
        If it is another request.
    """
    known, asked = earlier.request_digest, again.request_digest
    if known is None or asked is None:
        known, asked = earlier.spec_digest, again.spec_digest
    if (known, earlier.operation_type) != (asked, again.operation_type):
        raise Conflict(
            f"Idempotency key '{again.idempotency_key}' already belongs to operation {earlier.operation_id}, which "
            "came with another request. Use a new key for new work."
        )
    return earlier


def id_taken(operation_id: str) -> Conflict:
    """An id is used at most once."""
    return Conflict(
        f"Operation {operation_id} exists already; an id is used at most once. Submit with a new id."
    )


def not_terminal(operation_id: str, status: OperationStatus) -> Conflict:
    """Only what has ended can be forgotten."""
    return Conflict(
        f"Operation {operation_id} is {status}; only ended operations can be deleted. Cancel it first."
    )
