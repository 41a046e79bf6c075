"""Chaos is run by ``make test-chaos``, which says how long and with which seed; ``make test`` leaves it out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

collect_ignore_glob = [] if "CHAOS_ROUNDS" in os.environ else ["test_*.py"]
_PROPERTY = "chaos"
_LONG = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How much and with which random numbers; ``tell`` adds a line to the summary at the end."""

    rounds: int
    seed: int
    tell: Callable[[str], None]

    @property
    def short(self) -> bool:
        """Whether there is time for a sample only."""
        return self.rounds < _LONG

    def random(self, name: str) -> Random:
        return Random(f"{self.seed}/{name}")


@pytest.fixture
def plan(request: pytest.FixtureRequest) -> Plan:
    told = request.node.user_properties
    seed = int(os.environ.get("CHAOS_SEED") or 1)
    return Plan(int(os.environ["CHAOS_ROUNDS"]), seed, lambda line: told.append((_PROPERTY, line)))


def pytest_report_header() -> str | None:
    rounds = os.environ.get("CHAOS_ROUNDS")
    return f"chaos: {rounds} rounds, seed {os.environ.get('CHAOS_SEED') or 1}" if rounds else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, line in getattr(report, "user_properties", ()):
                if name == _PROPERTY and report.when == "call":
                    terminalreporter.write_line(f"chaos: {line}")
