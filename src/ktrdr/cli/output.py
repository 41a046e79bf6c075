"""What commands print: one JSON document with ``--json``, else plain words and tables."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Output", "figure"]

_PIPE_WIDTH = 200  # a table in a pipe must not be cut to a terminal's width that nobody has


class Output:
    """Prints results on stdout; progress and remarks go to stderr so that stdout can be piped."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @property
    def animated(self) -> bool:
        """True where a moving line is welcome: stdout and stderr are a terminal and JSON was not asked for."""
        return (
            not self.as_json
            and sys.stdout.isatty()
            and sys.stderr.isatty()
            and os.environ.get("TERM") != "dumb"
        )

    def result(self, data: Any, *lines: str) -> None:
        """The result of a command: ``data`` with --json, else the lines."""
        if self.as_json:
            click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))
        else:
            for line in lines:
                click.echo(line)

    def note(self, text: str) -> None:
        """A remark for people, on stderr; silent with --json."""
        if not self.as_json:
            click.echo(text, err=True)

    def table(
        self, data: Any, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str = "Nothing yet."
    ) -> None:
        """A list: ``data`` with --json, else a table; ``empty`` where there are no rows."""
        if self.as_json or not rows:
            self.result(data, empty)
            return
        from rich.table import Table  # lazy: rich is loaded only when a table is printed

        table = Table(box=None, pad_edge=False, header_style="bold")
        for position, name in enumerate(columns):
            numeric = all(_is_figure(row[position]) for row in rows)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(figure(value) for value in row))
        self.console().print(table)

    def mapping(self, data: Any, values: Mapping[str, Any]) -> None:
        """One thing: ``data`` with --json, else its fields, one a line."""
        width = max((len(key) for key in values), default=0)
        self.result(
            data, *(f"{key:<{width}}  {figure(value)}" for key, value in values.items() if value is not None)
        )

    def console(self) -> Console:
        """A rich console on stdout that keeps its width in a pipe; NO_COLOR is rich's own rule."""
        from rich.console import Console  # lazy, see above

        return Console(
            width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False, emoji=False
        )


def _is_figure(value: object) -> bool:
    """Numbers, and texts that are made of one (``+1.20 %``): these line up at the right."""
    if isinstance(value, str):
        return not value.strip(" +-–0123456789.,%")
    return isinstance(value, int | float | None)


def figure(value: Any) -> str:
    """A value as people read it: four significant decimals, thousands separated, '-' for what is undefined."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) < 1 else f"{value:.3f}"
    if isinstance(value, list | tuple):
        return ", ".join(figure(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {figure(v)}" for k, v in value.items())
    return str(value)
