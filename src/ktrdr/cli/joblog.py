"""Following an operation's log to its end."""

from __future__ import annotations

import codecs
import time
from typing import TYPE_CHECKING

import click

from ktrdr.cli.client import Api
from ktrdr.errors import ServerUnreachable

if TYPE_CHECKING:
    import httpx

__all__ = ["follow_log"]

_TERMINAL = ("completed", "failed", "cancelled")
_POLL_S = 0.5
_PATIENCE_S = 60.0  # a backend that restarts keeps the log


def follow_log(api: Api, operation_id: str, first: httpx.Response) -> None:
    """Print an answer of the log's route, then what comes after it until the operation has ended."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode  # a cut may divide a character
    answer, silent_since = first, None
    ended = False
    while True:
        click.echo(decode(answer.content), nl=False)
        if ended:
            return
        offset = int(answer.headers["x-log-size"])
        while True:
            time.sleep(_POLL_S)
            try:
                # the status first: what was printed before the end is then read after it
                ended = api.get(f"/operations/{operation_id}")["status"] in _TERMINAL
                answer = api.request("GET", f"/operations/{operation_id}/logs", params={"offset": offset})
                silent_since = None
                break
            except ServerUnreachable:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > _PATIENCE_S:
                    raise
        if int(answer.headers["x-log-size"]) < offset:
            click.echo("(The log was cut to its newest part; going on at its end.)", err=True)
