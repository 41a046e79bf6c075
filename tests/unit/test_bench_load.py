"""What the load benchmarks conclude from what they saw."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(
    str(Path(__file__).resolve().parents[2] / "benchmarks")
)  # as when they are run: scripts side by side

import run
from control.queue import out_of_order
from control.soak import LIMITS, Diary


def diary(per_second: float, seconds: int = 600) -> Diary:
    """Resident memory that wavers by 3 MB, and grows."""
    noise, found = random.Random(1), Diary()
    found.seen["rss"] = [150.0 + noise.uniform(-3.0, 3.0) + per_second * second for second in range(seconds)]
    return found


def test_a_soak_sees_growth_and_takes_no_noise_for_it() -> None:
    limit = LIMITS["rss"][2]
    assert abs(diary(0.0).growth("rss")) < limit / 4
    assert diary(0.06).growth("rss") > limit  # 216 MB an hour
    warming = Diary()
    warming.seen["fds"] = [10.0] * 100 + [80.0] * 500
    assert warming.growth("fds") == 0.0, "the first quarter is for warming up"


@pytest.mark.parametrize(
    ("started", "late"), [("", 0), ("abc", 0), ("aab", 0), ("acb", 1), ("cab", 2), ("cba", 2)]
)
def test_who_started_before_an_earlier_one(started: str, late: int) -> None:
    assert out_of_order([{"started_at": moment} for moment in started]) == late


def test_make_bench_control_runs_every_part_there_is() -> None:
    with_rows = [path for path in (run.HERE / "control").glob("*.py") if "\ndef rows(" in path.read_text()]
    parts = sorted(f"control.{path.stem}" for path in with_rows)
    assert parts == sorted(name for name in run.CONTROL if name.startswith("control."))
