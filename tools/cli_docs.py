"""Write ``docs/reference/cli.md`` from the commands' own help, so that the page and ``--help`` never differ."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ktrdr.cli.app import cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
HEAD = """# Command line

Generated from the commands' own help by `make docs`; a test compares. Exit codes: [one table](exit-codes.md).
"""


def helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """The path and help text of a command and of all below it, depth first."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from helps(child, click.Context(child, info_name=name, parent=context))


def render() -> str:
    """The page's text."""
    root = click.Context(cli, info_name="ktrdr", terminal_width=100, color=False, **cli.context_settings)
    parts = [HEAD]
    for path, text in helps(cli, root):
        body = "\n".join(line.rstrip() for line in text.splitlines())
        parts.append(f"## {path}\n\n```text\n{body}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render())
    sys.stdout.write(f"wrote {PAGE.name}\n")
