"""The limit of open files and connections, raised in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from ktrdr.descriptors import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_descriptor_limit({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "reached"),
    [(100, 300, 1_000, 300), (100, 300, 200, 200), (250, 300, 200, 250), (300, 300, 1_000, 300)],
)
def test_it_is_raised_as_far_as_wanted_and_allowed_and_never_lowered(
    soft: int, hard: int, wanted: int, reached: int
) -> None:
    program = PROGRAM.format(soft=soft, hard=hard, wanted=wanted)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(reached), str(reached), str(hard)]
