"""The machine's clocks behind the small interface; and the ground stays light."""

import subprocess
import sys
from datetime import UTC

from ktrdr.clock import Clock, SystemClock


def test_the_system_clock_is_aware_and_its_monotonic_side_does_not_go_back() -> None:
    clock: Clock = SystemClock()
    assert clock.now().tzinfo is UTC
    first = clock.monotonic()
    assert clock.monotonic() >= first


def test_the_ground_loads_nothing_heavier_than_numpy() -> None:
    code = (
        "import ktrdr.bars, ktrdr.artifacts, ktrdr.settings, ktrdr.clock, sys;"
        "print([m for m in ('polars', 'numba', 'pandas', 'torch', 'pydantic', 'platformdirs') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
