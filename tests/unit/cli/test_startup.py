"""``ktrdr --help`` loads next to nothing: what it costs is felt at every command."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "numpy",
    "polars",
    "torch",
    "fastapi",
    "pydantic",
    "rich",
    "httpx",
    "numba",
    "sqlalchemy",
    "onnxruntime",
)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["operations", "--help"], ["models", "train", "--help"], ["up", "--help"]]
)
def test_help_leaves_heavy_packages_out(arguments: list[str]) -> None:
    program = (
        "import sys; from ktrdr.cli.app import run; code = run(sys.argv[1:]); "
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]; "
        "print('LOADED', loaded, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert "LOADED []" in done.stderr
