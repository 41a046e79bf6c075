"""docs/explanation/operations.md shows the transition table as the code has it."""

from __future__ import annotations

from pathlib import Path

from ktrdr.operations.machine import EVENTS, TABLE, Rule
from ktrdr.operations.model import OperationStatus

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "operations.md"
START = "<!-- transition table: checked by tests/unit/operations/test_operations_page.py -->\n"
END = "<!-- end of transition table -->"
LIVE = [status for status in OperationStatus if not status.terminal]


def cell(rule: Rule) -> str:
    words = {"ignore": "ignored", "refuse": "refused", "go": " / ".join(rule.to)}
    return words[rule.kind]


def rendered() -> str:
    lines = [
        f"| event | {' | '.join(LIVE)} | completed, failed, cancelled |",
        "|---" * (len(LIVE) + 2) + "|",
    ]
    for event in EVENTS:
        ended = {cell(TABLE[status, event]) for status in OperationStatus if status.terminal}
        cells = [*(cell(TABLE[status, event]) for status in LIVE), *ended]
        lines.append(f"| `{event.__name__}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_page_shows_the_table_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text[text.index(START) + len(START) : text.index(END)].strip()
    assert shown == rendered(), f"put this between the two comments of {PAGE.name}:\n\n{rendered()}\n"
