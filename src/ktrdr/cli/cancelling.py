"""Cancelling many operations: what would end is counted and asked for first."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ktrdr.cli.client import Api
from ktrdr.cli.output import Output, is_terminal
from ktrdr.errors import InvalidInput

__all__ = ["UNENDED", "cancel_operations"]

UNENDED = ("pending", "assigned", "running")
_PATIENCE_S = 60.0  # a thousand operations end by one request


def cancel_operations(
    api: Api, out: Output, operation_type: str | None, statuses: Sequence[str], *, sure: bool
) -> None:
    """Ask for the end of all that fit, having asked the user unless ``sure``.

    Raises
    ------
    InvalidInput
        If there is no terminal to ask on.
    """
    wanted = list(statuses or UNENDED)
    if not sure:
        count = api.get("/operations", status=wanted, operation_type=operation_type, limit=1)["total"]
        what = f"{count:,} operation{'s' * (count != 1)} ({', '.join(wanted)})"
        if count and not is_terminal(sys.stdin):
            raise InvalidInput(f"{what} would be cancelled. Say that you mean it: --yes")
        if count and not click.confirm(f"Cancel {what}?", err=True):
            out.result({"cancelled": 0, "cancelling": 0}, "Nothing was cancelled.")
            return
    cancelled = cancelling = 0
    body = {"operation_type": operation_type, "status": wanted, "before": None}
    while True:
        answer = api.post("/operations/cancel", body, timeout_s=_PATIENCE_S)
        cancelled, cancelling = cancelled + answer["cancelled"], cancelling + answer["cancelling"]
        if not answer["more"]:
            break
        body["before"] = answer["before"]
    told = f"{cancelled:,} cancelled" + (f", {cancelling:,} about to end" if cancelling else "")
    nothing = "Nothing to cancel."
    out.result(
        {"cancelled": cancelled, "cancelling": cancelling}, f"{told}." if cancelled + cancelling else nothing
    )
