"""``ktrdr artifacts``: the files that the backend keeps by digest."""

from __future__ import annotations

import click

from ktrdr.cli.client import Api
from ktrdr.cli.options import api_command
from ktrdr.cli.output import Output

__all__ = ["artifacts"]

_PATIENCE_S = 600.0  # a large store is looked through


@click.group()
def artifacts() -> None:
    """Stored files: gc."""


@artifacts.command("gc")
@click.option("--dry-run", is_flag=True, help="Remove nothing, say what would go.")
@api_command
def gc(dry_run: bool, api: Api, out: Output) -> None:
    """Remove now what nothing refers to and what was not used for the grace (KTRDR_ARTIFACT_GRACE_S).

    The backend does it by itself, several times per grace.
    """
    answer = api.post("/artifacts/gc", {"dry_run": dry_run}, timeout_s=_PATIENCE_S)
    verb = "Would remove" if dry_run else "Removed"
    out.result(
        answer,
        f"{verb} {answer['removed']:,} artifacts ({answer['removed_bytes']:,} bytes); {answer['waiting']:,} without a "
        f"reference wait for their grace, {answer['kept']:,} are referred to.",
    )
