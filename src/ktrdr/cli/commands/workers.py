"""``ktrdr workers``: who registered with the backend; taking workers out of the fleet and back."""

from __future__ import annotations

import click

from ktrdr.cli.client import Api, Json
from ktrdr.cli.options import a_name, api_command
from ktrdr.cli.output import Output

__all__ = ["workers"]

_RAN = 10


@click.group()
def workers() -> None:
    """Workers: list, show, drain, undrain, forget."""


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
        (w["worker_id"], w["worker_type"], _status(w), w["current_operation_id"],
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


def _status(worker: Json) -> str:
    """With a word where a backend that started just now has it from the ledger: the worker may be gone."""
    status = str(worker["status"])
    return status if worker.get("seen", True) else f"{status} (not seen yet)"


@workers.command("show")
@click.argument("worker_id", callback=a_name)
@api_command
def show(worker_id: str, api: Api, out: Output) -> None:
    """Show one worker and the operations it ran last."""
    worker = api.get(f"/workers/{worker_id}")
    ran = api.get("/operations", worker_id=worker_id, limit=_RAN)["operations"]
    plain = {k: v for k, v in worker.items() if not isinstance(v, list | dict)}
    machine = {k: v for k, v in worker["capabilities"].items() if v}
    out.mapping({**worker, "operations": ran}, {**plain, "machine": machine})
    if not out.as_json:
        told = [
            f"  {o['operation_id']} {o['status']}, attempt {o['attempt']}"
            + (f": {o['error']}" if o["error"] else "")
            for o in ran
        ]
        out.result(None, "operations:", *(told or ["  none yet"]))


@workers.command("drain")
@click.argument("worker_id", callback=a_name)
@click.option("--release", is_flag=True, help="What it runs is saved and goes back to the queue now.")
@api_command
def drain(worker_id: str, release: bool, api: Api, out: Output) -> None:
    """Let a worker finish what it runs and give it no more, until 'undrain'; its restarts do not end that.

    With --release it does not finish: the operation goes on from its newest checkpoint at another worker, and no failure
    is counted. That takes up to 15 seconds; 'ktrdr workers show' tells when nothing runs there.
    """
    worker = api.post(f"/workers/{worker_id}/drain", release="true" if release else None)
    running = worker["current_operation_id"]
    does = "gives back" if release else "finishes"
    rest = f"it {does} {running} and takes no more" if running else "it is idle and takes no more"
    out.result(worker, f"{worker_id} drains: {rest}.")


@workers.command("undrain")
@click.argument("worker_id", callback=a_name)
@api_command
def undrain(worker_id: str, api: Api, out: Output) -> None:
    """Give a drained worker work again."""
    worker = api.post(f"/workers/{worker_id}/undrain")
    out.result(worker, f"{worker_id} is {worker['status']}.")


@workers.command("forget")
@click.argument("worker_id", callback=a_name)
@api_command
def forget(worker_id: str, api: Api, out: Output) -> None:
    """Forget a worker that is idle or does not answer. One that is alive registers again: stop its process first."""
    api.delete(f"/workers/{worker_id}")
    out.result({"forgotten": worker_id}, f"Forgot {worker_id}.")
