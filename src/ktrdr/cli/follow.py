"""Following an operation to its end, with a live line on a terminal and plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ktrdr.cli.client import Api, Json
from ktrdr.cli.exits import Exit
from ktrdr.cli.output import Output, figure
from ktrdr.errors import Cancelled, OperationFailed, ServerUnreachable

__all__ = ["follow", "submit"]

_TERMINAL = ("completed", "failed", "cancelled")
_POLL_S = 0.25
_PATIENCE_S = 60.0  # a backend that restarts keeps the operation; so the follower waits for it


def submit(
    api: Api, out: Output, path: str, body: dict[str, Any], *, detach: bool, cancel_on_interrupt: bool
) -> Json | None:
    """Start an operation; follow it unless ``detach``. Returns the finished operation, or None when detached."""
    started = api.post(path, body)
    operation_id = started["operation_id"]
    if detach:
        out.result(started, operation_id)
        return None
    return follow(api, out, operation_id, cancel_on_interrupt=cancel_on_interrupt)


def follow(api: Api, out: Output, operation_id: str, *, cancel_on_interrupt: bool = False) -> Json:
    """Wait for the end.

    Raises
    ------
    OperationFailed, Cancelled
        If it ended so.
    click.exceptions.Exit
        130 after Ctrl-C, having said the id and the cancel command.
    """
    try:
        with _display(out) as show:
            operation = _wait(api, operation_id, show)
    except KeyboardInterrupt:
        if cancel_on_interrupt:
            api.post(f"/operations/{operation_id}/cancel")
            click.echo(f"\nCancelling {operation_id}.", err=True)
        else:
            click.echo(
                f"\nNo longer following {operation_id}; it goes on.\n"
                f"  watch it:  ktrdr operations watch {operation_id}\n"
                f"  cancel it: ktrdr operations cancel {operation_id}",
                err=True,
            )
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None
    if operation["status"] == "failed":
        raise OperationFailed(f"Operation {operation_id} failed: {operation['error']}")
    if operation["status"] == "cancelled":
        raise Cancelled(f"Operation {operation_id} was cancelled.")
    return operation


def _wait(api: Api, operation_id: str, show: Callable[[Json], None]) -> Json:
    silent_since: float | None = None
    while True:
        try:
            operation = api.get(f"/operations/{operation_id}")
        except ServerUnreachable:
            now = time.monotonic()
            silent_since = silent_since or now
            if now - silent_since > _PATIENCE_S:
                raise
        else:
            silent_since = None
            show(operation)
            if operation["status"] in _TERMINAL:
                return operation
        time.sleep(_POLL_S)


@contextmanager
def _display(out: Output) -> Iterator[Callable[[Json], None]]:
    if out.animated:
        with _bar() as show:
            yield show
    else:
        yield _lines(out)


def _lines(out: Output) -> Callable[[Json], None]:
    """A line when the status changes and at every further tenth."""
    last: list[Any] = [None]

    def show(operation: Json) -> None:
        mark = (operation["status"], int(operation["progress"]["percentage"] // 10))
        if mark != last[0]:
            last[0] = mark
            out.note(_sentence(operation))

    return show


@contextmanager
def _bar() -> Iterator[Callable[[Json], None]]:
    from rich.console import Console  # lazy: only on a terminal
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[status]:<9}"),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=100.0, status="pending")

        def show(operation: Json) -> None:
            progress.update(
                task,
                completed=operation["progress"]["percentage"],
                status=operation["status"],
                description=_detail(operation),
            )

        yield show


def _sentence(operation: Json) -> str:
    detail = _detail(operation)
    percentage = operation["progress"]["percentage"]
    return f"{operation['operation_id']} {operation['status']} {percentage:.0f} %{': ' + detail if detail else ''}"


def _detail(operation: Json) -> str:
    if operation["status"] == "pending":
        place = operation.get("queue_position")
        return operation.get("waiting_for") or (f"number {place} in the queue" if place else "")
    context = operation["progress"]["context"]
    shown = ("train_loss", "val_loss", "current_date", "total_trades", "current_pnl")
    figures = ", ".join(f"{key} {figure(context[key])}" for key in shown if context.get(key) is not None)
    return " | ".join(part for part in (operation["progress"]["message"], figures) if part)
