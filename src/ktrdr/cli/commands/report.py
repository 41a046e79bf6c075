"""``ktrdr report``: a finished backtest as a page and a picture."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from ktrdr.cli.client import Api
from ktrdr.cli.options import a_name, api_command
from ktrdr.cli.output import Output

__all__ = ["report"]


@click.command()
@click.argument("operation_id", callback=a_name)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder to write to. Default: ktrdr-reports/ID here."
)
@click.option("--open", "open_", is_flag=True, help="Open the page in a browser.")
@api_command
def report(operation_id: str, output: Path | None, open_: bool, api: Api, out: Output) -> None:
    """Write the HTML and PNG report of a finished backtest."""
    from ktrdr.cli.reporting import write_report  # lazy: loads models, market data and plots

    folder = output or Path("ktrdr-reports") / operation_id
    page, picture = write_report(api, operation_id, folder)
    out.result({"html": str(page), "png": str(picture)}, str(page), str(picture))
    if open_ and not webbrowser.open(page.absolute().as_uri()):
        out.note(f"No browser could be started; open {page} by hand.")
