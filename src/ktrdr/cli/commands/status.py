"""``ktrdr status``: the fleet at a glance."""

from __future__ import annotations

import click

from ktrdr.cli.client import Api
from ktrdr.cli.options import api_command
from ktrdr.cli.output import Output
from ktrdr.cli.overview import overview_lines

__all__ = ["status"]


@click.command()
@api_command
def status(api: Api, out: Output) -> None:
    """Show whether the queue is open, and operations and workers by status."""
    queue, workers = api.get("/queue"), api.get("/metrics/workers")
    out.result({"queue": queue, "workers": workers}, *overview_lines(queue, workers))
