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
from control.growth import trend
from control.queue import out_of_order
from control.soak import LIMITS, Diary


def readings(per_second: float, seconds: int = 1800) -> list[float]:
    """Resident memory that wavers by 3 MB, and grows."""
    noise = random.Random(1)
    return [150.0 + noise.uniform(-3.0, 3.0) + per_second * second for second in range(seconds)]


def test_a_soak_sees_growth_and_takes_no_noise_for_it() -> None:
    limit = LIMITS["rss"][2]
    assert abs(trend(readings(0.0))) < limit / 10
    assert trend(readings(0.01)) == pytest.approx(18.0 * 11 / 12, abs=1.0)
    assert trend(readings(0.01)) > limit, "36 MB an hour"


def test_a_soak_takes_no_burst_for_growth() -> None:
    values = readings(0.0)
    values[1400:1700] = [value + 200.0 for value in values[1400:1700]]
    assert abs(trend(values)) < 1.0
    values = [value + 80.0 * (second % 60 < 45) for second, value in enumerate(readings(0.0))]
    assert abs(trend(values)) < 2.0, "three quarters of each minute"
    held = [value + 30.0 * (second > 900) for second, value in enumerate(readings(0.0))]
    assert trend(held) > 25.0, "what came in a burst and never went"
    assert trend([1.0]) == trend([]) == 0.0


def test_what_belongs_to_the_load_is_compared_at_rest() -> None:
    found = Diary(rests=[{"fds": 130.0}, {"fds": 139.0}])
    found.seen["fds"] = [300.0, 900.0]
    assert found.growth("fds") == 9.0 > LIMITS["fds"][2]


@pytest.mark.parametrize(
    ("started", "late"), [("", 0), ("abc", 0), ("aab", 0), ("acb", 1), ("cab", 2), ("cba", 2)]
)
def test_who_started_before_an_earlier_one(started: str, late: int) -> None:
    assert out_of_order([{"started_at": moment} for moment in started]) == late


def test_make_bench_control_runs_every_part_there_is() -> None:
    with_rows = [path for path in (run.HERE / "control").glob("*.py") if "\ndef rows(" in path.read_text()]
    parts = sorted(f"control.{path.stem}" for path in with_rows)
    assert parts == sorted(name for name in run.CONTROL if name.startswith("control."))
