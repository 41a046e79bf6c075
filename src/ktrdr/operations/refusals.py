"""What every ledger refuses, said in the same words."""

from __future__ import annotations

from ktrdr.errors import Conflict
from ktrdr.operations.model import Operation, OperationStatus

__all__ = ["id_taken", "not_terminal", "same_submission"]


def same_submission(earlier: Operation, again: Operation) -> Operation:
    """The earlier operation, if a submission with the same idempotency key asks for the same work.

    Raises
    ------
    Conflict
        If it asks for other work.
    """
    if (earlier.spec_digest, earlier.operation_type) != (again.spec_digest, again.operation_type):
        raise Conflict(
            f"Idempotency key '{again.idempotency_key}' already belongs to operation {earlier.operation_id}, which "
            "has another specification. Use a new key for new work."
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
