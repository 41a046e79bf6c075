"""The notebook tutorial's code, run as a reader would: from top to bottom, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "notebook.md"


def test_every_block_of_the_notebook_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 6
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"KTRDR_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    assert "Model(sp500_trend, SP500 1d" in done.stdout
    assert sorted(file.name for file in (tmp_path / "my_model").iterdir()) == [
        *("bundle.json", "model.onnx", "weights.safetensors")
    ]
    assert not (tmp_path / "home").exists()
