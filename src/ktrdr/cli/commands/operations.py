"""``ktrdr operations``: whatever was submitted, of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ktrdr.cli.client import Api, Json
from ktrdr.cli.follow import follow
from ktrdr.cli.options import api_command
from ktrdr.cli.output import Output
from ktrdr.cli.statistics import print_statistics

__all__ = ["operations"]

_STATUSES = ["pending", "assigned", "running", "cancelling", "completed", "failed", "cancelled"]


@click.group()
def operations() -> None:
    """Operations: list, show, watch, cancel, retry, results, metrics, delete."""


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
         o["worker_id"], o["created_at"][:19], o["error"])
        for o in found
    ]  # fmt: skip
    columns = ("operation_id", "type", "status", "progress", "worker", "created", "error")
    out.table({"operations": found}, columns, rows, empty="No operations match.")


@operations.command("show")
@click.argument("operation_id")
@api_command
def show(operation_id: str, api: Api, out: Output) -> None:
    """Show one operation and its story."""
    answer = api.get(f"/operations/{operation_id}")
    out.mapping(answer, {k: v for k, v in answer.items() if not isinstance(v, list | dict)})
    if not out.as_json:
        out.result(None, "story:", *(f"  {line}" for line in answer["story"]))


@operations.command("watch")
@click.argument("operation_id")
@click.option(
    "--cancel-on-interrupt", is_flag=True, help="Ctrl-C cancels the operation, not only the following."
)
@api_command
def watch(operation_id: str, cancel_on_interrupt: bool, api: Api, out: Output) -> None:
    """Follow an operation to its end."""
    operation = follow(api, out, operation_id, cancel_on_interrupt=cancel_on_interrupt)
    out.mapping(operation, {"operation": operation_id, **(operation["result_summary"] or {})})


@operations.command("cancel")
@click.argument("operation_id")
@api_command
def cancel(operation_id: str, api: Api, out: Output) -> None:
    """Cancel an operation; a running one ends within the grace of ten seconds."""
    answer = api.post(f"/operations/{operation_id}/cancel")
    out.result(answer, f"{operation_id} is {answer['status']}.")


@operations.command("retry")
@click.argument("operation_id")
@click.option("--detach", is_flag=True, help="Print the new id and return at once.")
@api_command
def retry(operation_id: str, detach: bool, api: Api, out: Output) -> None:
    """Run a failed or cancelled operation again, as a new one linked to it."""
    started = api.post(f"/operations/{operation_id}/retry")
    if detach:
        out.result(started, started["operation_id"])
        return
    operation = follow(api, out, started["operation_id"])
    out.mapping(operation, {"operation": operation["operation_id"], **(operation["result_summary"] or {})})


@operations.command("results")
@click.argument("operation_id")
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
        raise click.UsageError("--trades and --equity exclude each other.")
    if trades or equity:
        which = "trades" if trades else "equity"
        text = api.request(
            "GET", f"/operations/{operation_id}/results/{which}", params={"format": "csv"}
        ).text
        _write(text, output)
        return
    answer = api.get(f"/operations/{operation_id}/results")
    if output:
        _write(json.dumps(answer, indent=2) + "\n", output)
    elif out.as_json:
        out.result(answer)
    elif answer["result"]["kind"] == "backtest":
        print_statistics(out, answer["result"])
    else:
        out.mapping(answer, answer["result_summary"])


@operations.command("metrics")
@click.argument("operation_id")
@click.option("--cursor", type=click.IntRange(0), default=0, show_default=True, help="First record to show.")
@api_command
def metrics(operation_id: str, cursor: int, api: Api, out: Output) -> None:
    """Show the metrics records: one an epoch, or one a stretch of bars."""
    answer = api.get(f"/operations/{operation_id}/metrics", cursor=cursor)
    found = (answer.get(key) for key in ("epochs", "bars", "history"))
    records: list[Json] = next((records for records in found if records is not None), [])
    columns = list(records[0]) if records else []
    out.table(answer, columns, [[r.get(c) for c in columns] for r in records], empty="No records yet.")


@operations.command("delete")
@click.argument("operation_id")
@api_command
def delete(operation_id: str, api: Api, out: Output) -> None:
    """Forget a finished operation."""
    api.delete(f"/operations/{operation_id}")
    out.result({"deleted": operation_id}, f"Deleted {operation_id}.")


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"Cannot write '{output}': {error.strerror}.") from None
    click.echo(f"Wrote {output}.", err=True)
