"""What is said of a child that died."""

from __future__ import annotations

import signal

import pytest

from ktrdr.workers.host import describe_death
from ktrdr.workers.launch import Exit
from ktrdr.workers.nursery import peak_bytes
from ktrdr.workers.runfolder import DISK_EXIT

GIB = 1 << 30


@pytest.mark.parametrize(
    ("how", "oom_killed", "memory", "words"),
    [
        (Exit(signal.SIGKILL, GIB), True, True, ["want of memory", "SIGKILL", "1.00 GiB", "limit 8.00 GiB"]),
        (Exit(signal.SIGKILL, 7 * GIB), False, True, ["want of memory"]),
        (Exit(signal.SIGKILL, GIB), False, False, ["SIGKILL", "peak memory 1.00 GiB"]),
        (Exit(signal.SIGSEGV, 8 * GIB), True, False, ["SIGSEGV"]),
        (Exit(signal.SIGKILL), False, False, ["peak memory unknown"]),
        (Exit(DISK_EXIT << 8, GIB), True, False, ["disk did not take", "Make room", "1.00 GiB"]),
        (Exit(3 << 8, GIB), True, False, ["exit code 3"]),
    ],
)
def test_a_death_is_described(how: Exit, oom_killed: bool, memory: bool, words: list[str]) -> None:
    out_of_memory, told = describe_death(how, oom_killed=oom_killed, limit=8 * GIB)
    assert out_of_memory is memory
    for word in words:
        assert word in told


def test_peak_is_bytes() -> None:
    assert peak_bytes(2) in (2, 2048)
