"""``ktrdr operations``: whatever was submitted, of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ktrdr.cli.cancelling import UNENDED, cancel_operations
from ktrdr.cli.client import Api, Json
from ktrdr.cli.follow import follow
from ktrdr.cli.joblog import follow_log
from ktrdr.cli.options import a_name, a_name_or_none, api_command
from ktrdr.cli.output import Output, day_and_time, figure, write_file
from ktrdr.cli.overview import told_paused
from ktrdr.cli.statistics import print_statistics, print_summary, print_warnings
from ktrdr.errors import Conflict, InvalidInput

__all__ = ["cancel_operation", "operations"]

_ROWS_A_PAGE = 10_000  # the most that the API gives at once
_STATUSES = ["pending", "assigned", "running", "cancelling", "completed", "failed", "cancelled"]


@click.group()
def operations() -> None:
    """Operations: list, show, watch, cancel, pause, unpause, retry, resume, results, metrics, logs, delete."""


@operations.command("list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only these.")
@click.option("--type", "operation_type", type=click.Choice(["backtesting", "training"]), help="Only these.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most."
)
@api_command
def list_(status: str | None, operation_type: str | None, limit: int, api: Api, out: Output) -> None:
    """List operations, newest first."""
    found = list(api.pages("/operations", "operations", limit, status=status, operation_type=operation_type))
    rows = [
        (o["operation_id"], o["operation_type"], o["status"], f"{o['progress']['percentage']:.0f} %",
         o["worker_id"], day_and_time(o["created_at"]), o["error"])
        for o in found
    ]  # fmt: skip
    columns = ("operation_id", "type", "status", "done", "worker", "created (UTC)", "error")
    # The id tells type and time already; where nothing failed, nobody misses the errors.
    spare = ("type", "created (UTC)", *(() if any(o["error"] for o in found) else ("error",)), "worker")
    empty = "No operations match." if status or operation_type else "No operations yet."
    out.table({"operations": found}, columns, rows, empty=empty, spare=spare)
    if not out.as_json and any(o["status"] == "pending" for o in found):
        paused = api.get("/queue")["paused"]
        if paused:
            out.note(told_paused(paused))


@operations.command("show")
@click.argument("operation_id", callback=a_name)
@api_command
def show(operation_id: str, api: Api, out: Output) -> None:
    """Show one operation and its story."""
    answer = api.get(f"/operations/{operation_id}")
    progress = answer["progress"]
    done = f"{progress['percentage']:.0f} %" + (f", {progress['message']}" if progress["message"] else "")
    plain = {k: v for k, v in answer.items() if not isinstance(v, list | dict)}
    out.mapping(answer, {"operation_id": operation_id, "status": answer["status"], "progress": done, **plain})
    if not out.as_json:
        if answer["result_summary"]:
            figures = {k: v for k, v in answer["result_summary"].items() if not isinstance(v, list)}
            out.result(None, "result:", *(f"  {k} {figure(v)}" for k, v in figures.items()))
            print_warnings(out, answer["result_summary"].get("warnings"))
        out.result(None, "story:", *(f"  {line}" for line in answer["story"]))


@operations.command("watch")
@click.argument("operation_id", callback=a_name)
@click.option(
    "--cancel-on-interrupt", is_flag=True, help="Ctrl-C cancels the operation, not only the following."
)
@api_command
def watch(operation_id: str, cancel_on_interrupt: bool, api: Api, out: Output) -> None:
    """Follow an operation to its end."""
    operation = follow(api, out, operation_id, cancel_on_interrupt=cancel_on_interrupt)
    print_summary(out, operation)


@operations.command("cancel")
@click.argument("operation_id", required=False, callback=a_name_or_none)
@click.option("--all", "every", is_flag=True, help="Every operation that has not ended, instead of one.")
@click.option(
    "--type", "operation_type", type=click.Choice(["backtesting", "training"]), help="With --all: only these."
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(UNENDED),
    multiple=True,
    help="With --all: only these. May be repeated.",
)
@click.option("--yes", is_flag=True, help="With --all: do not ask.")
@api_command
def cancel(
    operation_id: str | None,
    every: bool,
    operation_type: str | None,
    statuses: tuple[str, ...],
    yes: bool,
    api: Api,
    out: Output,
) -> None:
    """Cancel an operation, or with --all many; a running one ends within the grace of ten seconds."""
    if every and operation_id is not None:
        raise click.UsageError(f"--all and '{operation_id}' exclude each other.")
    if every:
        cancel_operations(api, out, operation_type, statuses, sure=yes)
    elif operation_id is None:
        raise click.UsageError("Name an operation, or give --all.")
    elif operation_type or statuses or yes:
        raise click.UsageError("--type, --status and --yes go with --all.")
    else:
        cancel_operation(api, out, operation_id)


def cancel_operation(api: Api, out: Output, operation_id: str) -> None:
    """Ask for the end of an operation; repeating it is no error.

    Raises
    ------
    Conflict
        If it has ended otherwise already.
    """
    answer = api.post(f"/operations/{operation_id}/cancel")
    if answer["status"] in ("completed", "failed"):
        raise Conflict(f"Operation {operation_id} is {answer['status']} already; nothing was cancelled.")
    out.result(answer, f"{operation_id} is {answer['status']}.")


_TYPE = click.option(
    "--type", "operation_type", type=click.Choice(["backtesting", "training"]), help="Only these."
)


@operations.command("pause")
@_TYPE
@api_command
def pause(operation_type: str | None, api: Api, out: Output) -> None:
    """Dispatch nothing more until 'unpause', whatever restarts; what runs goes on, and what is submitted waits."""
    answer = api.post("/queue/pause", {"operation_type": operation_type})
    out.result(answer, told_paused(answer["paused"]))


@operations.command("unpause")
@_TYPE
@api_command
def unpause(operation_type: str | None, api: Api, out: Output) -> None:
    """Dispatch again."""
    answer = api.post("/queue/unpause", {"operation_type": operation_type})
    out.result(answer, told_paused(answer["paused"]))


@operations.command("retry")
@click.argument("operation_id", callback=a_name)
@click.option("--detach", is_flag=True, help="Print the new id and return at once.")
@api_command
def retry(operation_id: str, detach: bool, api: Api, out: Output) -> None:
    """Run a failed or cancelled operation again from its start, as a new one linked to it."""
    _started(api, out, api.post(f"/operations/{operation_id}/retry"), detach)


@operations.command("resume")
@click.argument("operation_id", callback=a_name)
@click.option("--detach", is_flag=True, help="Print the new id and return at once.")
@api_command
def resume(operation_id: str, detach: bool, api: Api, out: Output) -> None:
    """Go on with a failed or cancelled operation from its newest checkpoint, as a new one linked to it."""
    _started(api, out, api.post(f"/operations/{operation_id}/resume"), detach)


def _started(api: Api, out: Output, started: Json, detach: bool) -> None:
    if detach:
        out.result(started, started["operation_id"])
    else:
        print_summary(out, follow(api, out, started["operation_id"]))


@operations.command("results")
@click.argument("operation_id", callback=a_name)
@click.option("--trades", type=click.Choice(["csv"]), help="Print the trades instead of the statistics.")
@click.option(
    "--equity", type=click.Choice(["csv"]), help="Print the equity curve instead of the statistics."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
@api_command
def results(
    operation_id: str, trades: str | None, equity: str | None, output: Path | None, api: Api, out: Output
) -> None:
    """Show the results of a completed operation, or its trades or equity as CSV."""
    if trades and equity:
        raise InvalidInput("--trades and --equity exclude each other; call the command twice.")
    if trades or equity:
        _table(api, out, operation_id, "trades" if trades else "equity", output)
        return
    answer = api.get(f"/operations/{operation_id}/results")
    if output:
        _write(out, json.dumps(answer, indent=2) + "\n", output)
    elif not out.as_json and answer["operation_type"] == "backtesting":
        print_statistics(out, answer["result"])
    else:
        print_summary(out, answer)


def _table(api: Api, out: Output, operation_id: str, which: str, output: Path | None) -> None:
    path = f"/operations/{operation_id}/results/{which}"
    if not out.as_json:
        _write(out, api.request("GET", path, params={"format": "csv"}).text, output)
        return
    rows: list[Any] = list(api.pages(path, "items", page=_ROWS_A_PAGE))
    document = {"operation_id": operation_id, which: rows}
    if output:
        _write(out, json.dumps(document, indent=2) + "\n", output)
    else:
        out.result(document)


@operations.command("metrics")
@click.argument("operation_id", callback=a_name)
@click.option("--cursor", type=click.IntRange(0), default=0, show_default=True, help="First record to show.")
@api_command
def metrics(operation_id: str, cursor: int, api: Api, out: Output) -> None:
    """Show the metrics records: one an epoch, or one a stretch of bars."""
    answer = api.get(f"/operations/{operation_id}/metrics", cursor=cursor)
    found = (answer.get(key) for key in ("epochs", "bars", "history"))
    records: list[Json] = next((records for records in found if records is not None), [])
    columns = list(records[0]) if records else []
    empty = f"No records from {cursor:,} on." if cursor else "No records yet."
    out.table(answer, columns, [[r.get(c) for c in columns] for r in records], empty=empty)


@operations.command("logs")
@click.argument("operation_id", callback=a_name)
@click.option("--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Only the last N lines.")
@click.option("--follow", "following", is_flag=True, help="Go on until the operation ends.")
@api_command
def logs(operation_id: str, tail: int | None, following: bool, api: Api, out: Output) -> None:
    """Print what the operation's jobs printed and logged, all of it unless --tail is given.

    It is kept when the job failed, was cancelled, or its worker died.
    """
    if following and out.as_json:
        raise click.UsageError("--follow and --json exclude each other.")
    answer = api.request("GET", f"/operations/{operation_id}/logs", params={"tail": tail})
    if out.as_json:
        out.result({"operation_id": operation_id, "log": answer.content.decode(errors="replace")})
        return
    if following:
        follow_log(api, operation_id, answer)
    else:
        click.echo(answer.content.decode(errors="replace"), nl=False)


@operations.command("delete")
@click.argument("operation_id", callback=a_name)
@api_command
def delete(operation_id: str, api: Api, out: Output) -> None:
    """Forget a finished operation."""
    api.delete(f"/operations/{operation_id}")
    out.result({"deleted": operation_id}, f"Deleted {operation_id}.")


def _write(out: Output, text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    write_file(output, text.encode())
    out.note(f"Wrote {output}.")
