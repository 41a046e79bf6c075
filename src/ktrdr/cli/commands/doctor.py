"""``ktrdr doctor``: what is wrong with this machine's installation, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ktrdr.cli.check_settings import if_sound
from ktrdr.cli.exits import Exit
from ktrdr.cli.options import json_option
from ktrdr.cli.output import Output
from ktrdr.settings import api_token, api_url, home

if TYPE_CHECKING:
    from ktrdr.cli.doctor import Check

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option(
    "--api-url", "url", metavar="URL", help="The backend. Default: KTRDR_API_URL, else http://127.0.0.1:8000."
)
@json_option
def doctor(url: str | None, out: Output) -> int:
    """Check this machine: Python, packages, KTRDR_HOME, settings, database, ports, backend, workers, clock, GPU.

    One line per check: ok, warn or fail, and what to do. It changes nothing. Exit code 1 if a check fails.
    """
    from ktrdr.cli.doctor import examine  # lazy: what the checks need is loaded only by them

    told = bool(url or os.environ.get("KTRDR_API_URL"))
    checks: list[Check] = []
    for check in examine(home(), url or api_url(), if_sound(api_token), told=told):
        checks.append(check)
        if not out.as_json:
            _print(check)
    statuses = [check.status for check in checks]
    worst = next((status for status in ("fail", "warn") if status in statuses), "ok")
    if out.as_json:
        out.result({"status": worst, "checks": [asdict(check) for check in checks]})
    return Exit.FAILED if worst == "fail" else Exit.DONE


def _print(check: Check) -> None:
    colour = None if os.environ.get("NO_COLOR") else _COLOURS[check.status]
    advice = f" -> {check.advice}" if check.advice else ""
    line = " ".join(f"{check.name}: {check.detail}{advice}".split())
    click.echo(f"{click.style(f'{check.status:<4}', fg=colour)}  {line}")
