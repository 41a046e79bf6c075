"""Options that several commands share, and the session they open."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ktrdr.cli.output import Output
from ktrdr.settings import api_token, api_url

__all__ = ["api_command", "json_option", "start_options"]

F = TypeVar("F", bound=Callable[..., Any])


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

        with Api(api_url or _default_url(), api_token()) as api:
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
        click.option("--priority", type=int, help="Higher runs earlier. Default 0."),
    ):
        function = option(function)
    return function


def _default_url() -> str:
    return api_url()
