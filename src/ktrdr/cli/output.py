"""What commands print: one JSON document with ``--json``, else plain words and tables."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import click

from ktrdr.cli.tables import figure, table_lines
from ktrdr.errors import InvalidInput

__all__ = ["Output", "day_and_time", "figure", "heading", "is_terminal", "write_file"]


def day_and_time(stamp: str) -> str:
    """``2026-01-31 14:05`` of an ISO stamp in UTC."""
    return stamp[:16].replace("T", " ")


def is_terminal(stream: IO[str] | None) -> bool:
    """True for a terminal that can move its cursor; a stream may be closed (None), which is none."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def heading(text: str) -> str:
    """The text in bold where stdout is a terminal and NO_COLOR is not set."""
    plain = not is_terminal(sys.stdout) or os.environ.get("NO_COLOR")
    return text if plain else click.style(text, bold=True)


class Output:
    """Prints results on stdout; progress and remarks go to stderr so that stdout can be piped."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    @property
    def animated(self) -> bool:
        """True where a moving line is welcome: stdout and stderr are a terminal and JSON was not asked for."""
        return not self.as_json and is_terminal(sys.stdout) and is_terminal(sys.stderr)

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
        self,
        data: Any,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        empty: str = "Nothing yet.",
        spare: Sequence[str] = (),
    ) -> None:
        """A list: ``data`` with --json, else a table; ``empty`` where there are no rows.

        ``spare`` names the columns that a narrow terminal may do without, the most dispensable first.
        """
        if self.as_json or not rows:
            self.result(data, empty)
            return
        width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
        head, *lines = table_lines(columns, rows, width=width, spare=spare)
        self.result(data, heading(head), *lines)

    def mapping(self, data: Any, values: Mapping[str, Any]) -> None:
        """One thing: ``data`` with --json, else its fields, one a line."""
        width = max((len(key) for key in values), default=0)
        self.result(
            data, *(f"{key:<{width}}  {figure(value)}" for key, value in values.items() if value is not None)
        )


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a device such as ``/dev/stdout`` is written as it is.

    Raises
    ------
    InvalidInput
        If it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        temporary = path.with_name(f".{path.name}.part")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"Cannot write '{path}': {error.strerror}. Choose another place by --output."
        ) from None
