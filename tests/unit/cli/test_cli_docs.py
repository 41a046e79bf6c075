"""The command line's page is what ``--help`` says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("cli_docs", ROOT / "tools" / "cli_docs.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text() == tool.render(), "run: make docs"


def test_every_command_has_help() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    for section in page.split("\n## ")[1:]:
        usage = section.split("```text\n")[1]
        assert usage.count("\n\n") >= 2, section  # usage, a sentence, options
