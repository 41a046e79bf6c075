"""``ktrdr audit``: who changed what at the backend."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from ktrdr.cli.client import Api
from ktrdr.cli.commands.tokens import a_duration
from ktrdr.cli.options import api_command
from ktrdr.cli.output import Output, day_and_time

__all__ = ["audit"]


def a_moment(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """A date or time in ISO form, or how long ago: ``2026-01-31``, ``2026-01-31T14:00``, ``24h``."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            seconds = a_duration(context, parameter, value)
        except click.BadParameter:
            raise click.BadParameter(
                f"'{value}' is no time: give 2026-01-31, 2026-01-31T14:00 (UTC), or how long ago: 24h, 30d, at most 3660d."
            ) from None
        return datetime.now(UTC) - timedelta(seconds=seconds or 0)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command()
@click.option(
    "--since",
    callback=a_moment,
    metavar="TIME",
    help="From when on: 24h, 30d, 2026-01-31, 2026-01-31T14:00 (UTC).",
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@api_command
def audit(since: datetime | None, limit: int, api: Api, out: Output) -> None:
    """List requests that changed something at the backend, newest first: who, from where, what, which id, outcome.

    Needs the scope admin.
    """
    text = None if since is None else since.isoformat()
    entries = list(api.pages("/audit", "entries", limit, since=text))
    rows = [
        (day_and_time(e["at"]), e["who"], e["address"], e["what"], e["subject"], e["outcome"], e["detail"])
        for e in entries
    ]
    columns = ("when", "who", "address", "what", "id", "outcome", "detail")
    out.table({"entries": entries}, columns, rows, empty="Nothing was recorded.", spare=("detail", "address"))
