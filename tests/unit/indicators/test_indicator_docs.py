"""The reference page is the catalog."""

from __future__ import annotations

import importlib.util
from pathlib import Path

TOOL = Path(__file__).resolve().parents[3] / "tools" / "indicator_docs.py"


def test_the_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("indicator_docs", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text() == tool.render(), "run: make docs"
