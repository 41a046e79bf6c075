"""``ktrdr tokens``: who may do what at the backend."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from ktrdr.cli.client import Api
from ktrdr.cli.options import a_name, api_command
from ktrdr.cli.output import Output, day_and_time

__all__ = ["a_duration", "tokens"]

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = timedelta(days=3660)  # ten years: the longest life that the backend gives a token
_SCOPES = ("read", "submit", "worker", "admin")


def a_duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Seconds of ``30d``, ``12h``, ``45m`` or ``2w``."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,7})([mhdw])", value)
    duration = int(found[1]) * _UNITS[found[2]] if found else timedelta(0)
    if not timedelta(0) < duration <= _LONGEST:
        raise click.BadParameter(
            f"'{value}' is not a duration: a whole number and m, h, d or w, such as 30d, and at most {_LONGEST.days}d."
        )
    return duration.total_seconds()


@click.group()
def tokens() -> None:
    """Tokens: create, list, revoke."""


@tokens.command("create")
@click.argument("name", callback=a_name)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(_SCOPES),
    multiple=True,
    required=True,
    help="What it allows; may be repeated. submit includes read, admin includes all.",
)
@click.option(
    "--expires",
    callback=a_duration,
    metavar="DURATION",
    help="When it ends: 30d, 12h, 45m, 2w. Default: never.",
)
@api_command
def create(name: str, scopes: tuple[str, ...], expires: float | None, api: Api, out: Output) -> None:
    """Make a token and print it. It is shown once: the backend keeps only a hash.

    Give it to whom it is for as KTRDR_API_TOKEN, or to a worker as KTRDR_ENROLMENT_TOKEN.
    """
    answer = api.post("/tokens", {"name": name, "scopes": list(scopes), "expires_in_s": expires})
    ends = "never ends" if answer["expires_at"] is None else f"ends {day_and_time(answer['expires_at'])} UTC"
    out.note(f"Token '{name}' ({', '.join(answer['scopes'])}) {ends}. It is shown this once; keep it safe:")
    out.result(answer, answer["token"])


@tokens.command("list")
@api_command
def list_(api: Api, out: Output) -> None:
    """List the tokens, without what opens the door."""
    answer = api.get("/tokens")
    rows = [
        (t["name"], ", ".join(t["scopes"]), day_and_time(t["created_at"]), t["created_by"],
         t["expires_at"] and day_and_time(t["expires_at"]), t["last_used_at"] and day_and_time(t["last_used_at"]))
        for t in answer["tokens"]
    ]  # fmt: skip
    columns = ("name", "scopes", "created", "by", "expires", "last used")
    empty = "No tokens. Make one: ktrdr tokens create NAME --scope read"
    out.table(answer, columns, rows, empty=empty, spare=("by", "created"))


@tokens.command("revoke")
@click.argument("name", callback=a_name)
@api_command
def revoke(name: str, api: Api, out: Output) -> None:
    """Make a token worthless at once. Its name can be given again."""
    api.delete(f"/tokens/{name}")
    out.result({"name": name, "revoked": True}, f"Token '{name}' is revoked.")
