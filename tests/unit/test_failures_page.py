"""The table of failures names every failure there is to name, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "failures.md"
EVENTS = (
    *("worker process killed", "job's process killed", "out of memory", "frozen (SIGSTOP)", "is back"),
    *("both ways", "one way", "half open", "every|any step of a dispatch", "30 s", "backend's disk full"),
    *("worker's disk full", "clock jumps", "doubled", "late", "two backends"),
)


def _rows() -> list[list[str]]:
    table = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [row for row in table[2:] if len(row) == 4]


def test_every_failure_is_in_the_table() -> None:
    events = "\n".join(row[0] for row in _rows())
    assert [
        event for event in EVENTS if not re.search(event.replace("(", r"\(").replace(")", r"\)"), events)
    ] == []


def test_every_row_has_a_bound_and_tests_that_exist() -> None:
    written = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(_rows()) >= 20
    for event, _, bound, proof in _rows():
        assert re.match(r"\d+\b", bound), event
        named = re.findall(r"`(test_\w+)`", proof)
        assert named, event
        assert [name for name in named if f"def {name}(" not in written] == [], event
