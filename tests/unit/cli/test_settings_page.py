"""The page of settings names every one that the code reads, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NAME = r"(?:KTRDR|WORKER)_[A-Z_]*[A-Z]"


def test_every_setting_is_on_the_page_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = {
        name
        for row in page.splitlines()
        if row.startswith("| `")
        for name in re.findall(NAME, row.split("|")[1])
    }
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    read = {name for name in re.findall(rf'"({NAME})"', code) if not name.endswith("_FILE")}
    read -= {"WORKER_TYPE"}  # the name of a table in the code
    assert len(read) > 15
    assert rows == read
