"""The bounds that docs/explanation/failures.md promises, as tests assert them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LEADERS", "LEASES", "FailureRow", "allowed_s", "failure_rows", "kept", "within"]

_PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "failures.md"
_LOADED = 1.5  # what a loaded machine is allowed of the bound
_LEAST_S = 10.0  # no test asserts less: a machine may be busy with something else for that long
LEASES = 4.0 - 60.0  # the page speaks of leases of 60 s, tests have some of 4 s
LEADERS = 2.0 - 10.0  # and so with the leases of leaders


class FailureRow:
    """One row of the table: ``event``, what is ``seen``, ``bound_s``, the ``proofs`` of it and ``further`` tests."""

    def __init__(self, cells: list[str]) -> None:
        event, self.seen, bound, proofs, further = cells
        self.event = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", event)
        told = re.match(r"\d+\b", bound)
        assert told, f"'{event}' has no bound: '{bound}'"
        self.bound_s = float(told[0])
        self.proofs, self.further = (re.findall(r"`(test_\w+)`", cell) for cell in (proofs, further))


def failure_rows() -> list[FailureRow]:
    """The table, without its head."""
    lines = [line for line in _PAGE.read_text().splitlines() if line.startswith("| ")]
    return [FailureRow([cell.strip() for cell in line.strip("|").split("|")]) for line in lines[2:]]


def allowed_s(event: str, plus_s: float = 0.0) -> float:
    """How long this event may be felt, at most, on a machine that does other things too.

    ``plus_s`` is by how much the settings of the test, or what the page adds in words, lengthen the bound.
    """
    [row] = [row for row in failure_rows() if row.event == event]
    return max(_LEAST_S, _LOADED * (row.bound_s + plus_s))


def kept(event: str, took_s: float, plus_s: float = 0.0) -> float:
    """Fail if it took longer than promised; gives the seconds back."""
    most_s = allowed_s(event, plus_s)
    assert took_s <= most_s, f"{event}: felt for {took_s:.1f} s, at most {most_s:.1f} s are allowed"
    return took_s


@contextmanager
def within(event: str, plus_s: float = 0.0) -> Iterator[None]:
    """The block waits for what the table promises, from the event (or its end) on; fail if that takes too long."""
    began = time.monotonic()
    yield
    kept(event, time.monotonic() - began, plus_s)
