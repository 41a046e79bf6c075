"""Options that several commands share, what they accept, and the session they open."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ktrdr.cli.output import Output
from ktrdr.settings import api_token, api_url

__all__ = ["a_name", "a_name_or_none", "a_number", "api_command", "json_option", "start_options"]

F = TypeVar("F", bound=Callable[..., Any])


def a_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Checks an id, symbol or other name that becomes part of a URL's path, and therefore cannot lead elsewhere."""
    if re.fullmatch(r"[A-Za-z0-9^._=-]+", value) and value.strip("."):
        return value
    raise click.BadParameter(f"'{value}' is not a name: use letters, digits and ^ . _ = - only.")


def a_name_or_none(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """As :func:`a_name`, where the name may be left out."""
    return None if value is None else a_name(ctx, param, value)


def a_number(
    example: str, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """Checks for a finite number between limits; the message gives ``example``."""
    limits = [
        f"{word} {limit:g}"
        for word, limit in (("above", above), ("of at least", least), ("below", below))
        if math.isfinite(limit)
    ]

    def convert(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isfinite(number) and above < number < below and number >= least:
            return number
        raise click.BadParameter(f"'{value}' is not a number {' and '.join(limits)}, such as {example}.")

    return convert


def json_option(function: F) -> F:
    """Adds ``--json`` and replaces it by an ``out`` parameter."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, **kwargs: Any) -> Any:
        return function(*args, out=Output(as_json), **kwargs)

    return wrapped  # type: ignore[return-value]


def api_command(function: F) -> F:
    """Adds ``--api-url`` and ``--json``; the command gets ``api`` and ``out``."""

    @click.option(
        "--api-url", metavar="URL", help="The backend. Default: KTRDR_API_URL, else http://127.0.0.1:8000."
    )
    @json_option
    @functools.wraps(function)
    def wrapped(*args: Any, api_url: str | None, **kwargs: Any) -> Any:
        from ktrdr.cli.client import Api  # lazy: httpx is loaded only by commands that call the backend
        from ktrdr.protocol.tls import TlsSettings
        from ktrdr.protocol.tls_renewal import connecting

        url = _default_url() if api_url is None else api_url
        with Api(url, api_token(), tls=connecting(TlsSettings.from_environment())) as api:
            return function(*args, api=api, **kwargs)

    return wrapped  # type: ignore[return-value]


def start_options(function: F) -> F:
    """Options of the commands that submit an operation and follow it."""
    for option in (
        click.option("--detach", is_flag=True, help="Print the operation's id and return at once."),
        click.option(
            "--cancel-on-interrupt",
            is_flag=True,
            help="Ctrl-C cancels the operation, not only the following.",
        ),
        click.option(
            "--reject-when-busy", is_flag=True, help="Fail instead of queueing when all workers are busy."
        ),
        click.option("--priority", type=click.IntRange(-1000, 1000), help="Higher runs earlier. Default 0."),
        click.option(
            "--time-limit",
            metavar="SECONDS",
            callback=a_number("3600 for an hour", above=0, below=1e9),
            help="Stop an attempt that runs longer; the operation has failed then. Default: none.",
        ),
    ):
        function = option(function)
    return function


def _default_url() -> str:
    return api_url()
