"""Following an operation to its end, with a live line on a terminal and plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ktrdr.cli.client import Api, Json
from ktrdr.cli.exits import Interrupted
from ktrdr.cli.output import Output
from ktrdr.errors import Cancelled, OperationFailed, ServerUnreachable

__all__ = ["follow", "submit"]

_TERMINAL = ("completed", "failed", "cancelled")
_POLL_S = 0.25
_PATIENCE_S = 60.0  # a backend that restarts keeps the operation; so the follower waits for it
_SILENCE_S = 30.0  # in a log, a line now and then tells that the work goes on


def submit(
    api: Api, out: Output, path: str, body: dict[str, Any], *, detach: bool, cancel_on_interrupt: bool
) -> Json | None:
    """Start an operation; follow it unless ``detach``. Returns the finished operation, or None when detached."""
    try:
        started = api.post(path, body)
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted while the request was on its way; it may have been accepted. See: ktrdr operations list"
        ) from None
    operation_id = started["operation_id"]
    if detach:
        out.result(started, operation_id)
        return None
    return follow(api, out, operation_id, cancel_on_interrupt=cancel_on_interrupt)


def follow(
    api: Api,
    out: Output,
    operation_id: str,
    *,
    cancel_on_interrupt: bool = False,
    poll_s: float = _POLL_S,
    patience_s: float = _PATIENCE_S,
    silence_s: float = _SILENCE_S,
) -> Json:
    """Wait for the end.

    Parameters
    ----------
    poll_s
        Seconds between two looks.
    patience_s
        For how many seconds the backend may be unreachable, once it has answered.
    silence_s
        After how many seconds without news a line is repeated where no live line is shown.

    Raises
    ------
    OperationFailed, Cancelled
        If it ended so.
    NotFound
        If there is no such operation.
    ServerUnreachable
        If the backend does not answer, or stays away for longer than ``patience_s``.
    Interrupted
        After Ctrl-C; the message names the operation and how to cancel it.
    """
    try:
        first = api.get(f"/operations/{operation_id}")  # before any display: there may be no such operation
        with _display(out, silence_s) as show:
            operation = _wait(api, first, show, poll_s, patience_s)
    except KeyboardInterrupt:
        raise _interrupted(api, operation_id, cancel_on_interrupt) from None
    if operation["status"] == "failed":
        raise OperationFailed(f"Operation {operation_id} failed: {operation['error']}{_remedies(operation)}")
    if operation["status"] == "cancelled":
        raise Cancelled(f"Operation {operation_id} was cancelled.{_remedies(operation)}")
    return operation


def _remedies(operation: Json) -> str:
    """The commands for an operation that ended without a result."""
    kept = operation.get("checkpoint_digest") is not None
    again = (
        "go on from its checkpoint: ktrdr operations resume"
        if kept
        else "run it again: ktrdr operations retry"
    )
    name = operation["operation_id"]
    return f"\n  its log: ktrdr operations logs {name}\n  {again} {name}"


def _interrupted(api: Api, operation_id: str, cancel: bool) -> Interrupted:
    if cancel:
        api.post(f"/operations/{operation_id}/cancel")
        return Interrupted(f"Cancelling {operation_id}.")
    return Interrupted(
        f"No longer following {operation_id}; it goes on.\n"
        f"  watch it:  ktrdr operations watch {operation_id}\n"
        f"  cancel it: ktrdr operations cancel {operation_id}"
    )


def _wait(api: Api, operation: Json, show: Callable[[Json], None], poll_s: float, patience_s: float) -> Json:
    silent_since: float | None = None
    while True:
        if silent_since is None:
            show(operation)
            if operation["status"] in _TERMINAL:
                return operation
        time.sleep(poll_s)
        try:
            operation = api.get(f"/operations/{operation['operation_id']}")
            silent_since = None
        except ServerUnreachable:
            now = time.monotonic()
            silent_since = silent_since or now
            if now - silent_since > patience_s:
                raise


@contextmanager
def _display(out: Output, silence_s: float) -> Iterator[Callable[[Json], None]]:
    if out.animated:
        with _bar() as show:
            yield show
    else:
        yield _lines(out, silence_s)


def _lines(out: Output, silence_s: float) -> Callable[[Json], None]:
    """A line when the status changes, at every further tenth, and after a long silence."""
    last: list[Any] = [None, 0.0]

    def show(operation: Json) -> None:
        mark, now = (operation["status"], int(operation["progress"]["percentage"] // 10)), time.monotonic()
        if mark != last[0] or now - last[1] >= silence_s:
            last[:] = [mark, now]
            out.note(_sentence(operation))

    return show


@contextmanager
def _bar() -> Iterator[Callable[[Json], None]]:
    from rich.console import Console  # lazy: only on a terminal
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.fields[status]}", table_column=Column(width=10, no_wrap=True)),
        BarColumn(table_column=Column(width=20)),
        TaskProgressColumn(table_column=Column(width=4, no_wrap=True, justify="right")),
        TimeElapsedColumn(table_column=Column(width=7, no_wrap=True)),
        # what is left of the line, cut where it ends: a line that breaks could not be redrawn
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
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
    done = "" if operation["status"] in _TERMINAL else f" {operation['progress']['percentage']:.0f} %"
    return f"{operation['operation_id']} {operation['status']}{done}{': ' + detail if detail else ''}"


def _detail(operation: Json) -> str:
    """What it is doing, or waiting for; an operation that has ended does nothing."""
    if operation["status"] == "pending":
        place = operation.get("queue_position")
        waiting = [operation.get("waiting_for"), f"number {place} in the queue" if place else None]
        return ", ".join(part for part in waiting if part)
    return "" if operation["status"] in _TERMINAL else operation["progress"]["message"]
