"""Every scenario has its test and every scenario test its scenario."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "docs" / "testing" / "scenarios"
PARTS = ("Category", "Prerequisites", "Duration", "Test")


def _sections() -> dict[str, str]:
    found = {}
    for page in sorted(SCENARIOS.glob("*.md")):
        for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
            found[section.splitlines()[0]] = section
    return found


def test_every_scenario_is_executed_by_the_test_it_names() -> None:
    named = {re.search(r"- Test: `(\w+)`", text).group(1) for text in _sections().values()}  # type: ignore[union-attr]
    written = set()
    for file in (ROOT / "tests" / "e2e").glob("test_b*.py"):
        written |= set(re.findall(r"^def (test_b\d+_\d+_\w+)\(", file.read_text(), flags=re.MULTILINE))
    assert named == written
    assert len(named) >= 22


def test_every_scenario_is_complete() -> None:
    for title, text in _sections().items():
        for part in PARTS:
            assert f"- {part}: " in text, f"{title} lacks {part}"
        assert "```" in text, f"{title} lacks commands"
        assert "Expected:\n\n- " in text, f"{title} lacks expected results"


def test_the_index_names_every_file() -> None:
    index = (SCENARIOS.parent / "SCENARIOS.md").read_text()
    for page in SCENARIOS.glob("*.md"):
        assert f"scenarios/{page.name}" in index


def test_every_mistake_of_the_guide_has_the_test_it_names() -> None:
    guide = (SCENARIOS.parent / "TESTING_GUIDE.md").read_text()
    named = re.findall(r"^\| .* \| `(test_\w+)` \|$", guide, flags=re.MULTILINE)
    written = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) >= 13
    assert [name for name in named if f"def {name}(" not in written] == []
