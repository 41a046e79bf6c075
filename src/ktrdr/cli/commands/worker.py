"""``ktrdr worker``: one worker alone, on this machine, for a backend anywhere."""

from __future__ import annotations

from typing import Literal

import click

from ktrdr.cli.parent import watch_parent

__all__ = ["worker"]


@click.group()
def worker() -> None:
    """One worker alone: start."""


@worker.command("start")
@click.argument("kind", type=click.Choice(["backtesting", "training"]))
@click.option(
    "--api-url",
    metavar="URL",
    help="The backend to register with. Default: KTRDR_API_URL; one of them is required.",
)
@click.option(
    "--host", help="Address to listen on. Default: WORKER_IP, else the address the backend can reach."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port; 0 takes a free one. Default: WORKER_PORT, else 5003 or 5004.",
)
@click.option("--parent-fd", type=int, hidden=True, help="A pipe from 'ktrdr up'; stop when it closes.")
def start(
    kind: Literal["backtesting", "training"],
    api_url: str | None,
    host: str | None,
    port: int | None,
    parent_fd: int | None,
) -> None:
    """Start a worker; it registers itself and serves until Ctrl-C or SIGTERM."""
    from ktrdr.workers.kinds import run_worker  # lazy: the worker's server is needed only here

    if parent_fd is not None:
        watch_parent(parent_fd)
    run_worker(kind, api_url=api_url, host=host, port=port)
