"""The table of failures names every failure there is to name, and tests that assert what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.bounds import FailureRow, allowed_s, failure_rows, kept

TESTS = Path(__file__).parents[1]
EVENTS = (
    *("worker process killed", "job's process killed", "out of memory", "frozen (SIGSTOP)", "is back"),
    *("both ways", "one way", "half open", "every|any step of a dispatch", "30 s", "backend's disk full"),
    *("worker's disk full", "clock jumps", "doubled", "late", "two backends"),
)
ROWS = failure_rows()


def _files_of(test: str) -> list[Path]:
    return [file for file in TESTS.rglob("test_*.py") if f"def {test}(" in file.read_text()]


def _words(files: list[Path]) -> set[str]:
    """The strings that stand in these files."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_every_failure_is_in_the_table() -> None:
    events = "\n".join(row.event for row in ROWS)
    assert [
        event for event in EVENTS if not re.search(event.replace("(", r"\(").replace(")", r"\)"), events)
    ] == []
    assert len(ROWS) >= 31


@pytest.mark.parametrize("row", ROWS, ids=[row.event for row in ROWS])
def test_tests_that_exist_hold_each_row_to_its_bound(row: FailureRow) -> None:
    assert row.proofs, "no test asserts it"
    assert [name for name in [*row.proofs, *row.further] if not _files_of(name)] == []
    files = [file for name in row.proofs for file in _files_of(name)]
    assert row.event in _words([*files, TESTS / "support" / "several_scenarios.py"]), (
        f"none of {row.proofs} measures within({row.event!r})"
    )


def test_a_bound_is_widened_for_loaded_machines_and_never_below_ten_seconds() -> None:
    assert allowed_s("job's process killed") == 10.0
    assert allowed_s("worker frozen (SIGSTOP)") == 1.5 * 75
    assert allowed_s("worker frozen (SIGSTOP)", -56.0) == 1.5 * 19
    assert kept("job's process killed", 9.9) == 9.9
    with pytest.raises(AssertionError, match=r"felt for 10\.1 s, at most 10\.0 s"):
        kept("job's process killed", 10.1)
