"""``ktrdr workers``: who registered with the backend."""

from __future__ import annotations

import click

from ktrdr.cli.client import Api
from ktrdr.cli.options import api_command
from ktrdr.cli.output import Output

__all__ = ["workers"]


@click.group()
def workers() -> None:
    """Workers: list."""


@workers.command("list")
@click.option("--type", "worker_type", type=click.Choice(["backtesting", "training"]), help="Only these.")
@click.option(
    "--status",
    type=click.Choice(["available", "busy", "draining", "temporarily_unavailable"]),
    help="Only these.",
)
@api_command
def list_(worker_type: str | None, status: str | None, api: Api, out: Output) -> None:
    """List the registered workers."""
    answer = api.get("/workers", worker_type=worker_type, status=status)
    rows = [
        (w["worker_id"], w["worker_type"], w["status"], w["current_operation_id"],
         w["capabilities"]["gpu_type"] or "CPU", w["capabilities"]["cores"], w["endpoint_url"])
        for w in answer["workers"]
    ]  # fmt: skip
    columns = ("worker_id", "type", "status", "operation", "device", "cores", "endpoint")
    all_of_them = worker_type is None and status is None
    empty = (
        "No workers. Start one: ktrdr worker start backtesting (or training)"
        if all_of_them
        else "No workers match; see them all: ktrdr workers list"
    )
    out.table(answer, columns, rows, empty=empty, spare=("cores", "device", "endpoint", "type"))
