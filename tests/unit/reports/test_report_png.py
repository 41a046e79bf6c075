from __future__ import annotations

import dataclasses
import io
import subprocess
import sys

import matplotlib.image
import numpy as np

from ktrdr.reports import ReportData, build_png
from unit.reports.report_pieces import make_data, walk


def pixels(content: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(content), format="png")


def shows(image: np.ndarray, colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(image[:, :, :3] - wanted).max(axis=2) < 0.02).any())


def test_the_picture_shows_equity_benchmark_and_trades(data: ReportData) -> None:
    image = pixels(build_png(data))
    assert image.shape[:2] == (1000, 1500)
    for colour in ("#3b82f6", "#94a3b8", "#2563eb", "#d97706"):
        assert shows(image, colour), colour


def test_the_same_input_gives_the_same_bytes(data: ReportData) -> None:
    assert build_png(data) == build_png(data)


def test_bare_results_can_be_drawn(data: ReportData) -> None:
    bare = dataclasses.replace(
        data,
        bars=None,
        strategy=None,
        history=None,
        equity=data.equity.drop("benchmark"),
        trades=data.trades.head(0),
    )
    image = pixels(build_png(bare))
    assert shows(image, "#3b82f6")
    assert not shows(image, "#2563eb")


def test_names_with_mathematics_and_markup_are_text() -> None:
    data = make_data(walk(60), document={"strategy_name": r"a $\frac{1}{$ </b> b_$"})
    assert pixels(build_png(data)).shape[:2] == (1000, 1500)


def test_without_matplotlib_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.backends.backend_agg'] = None\n"
        "from ktrdr.reports import build_png\n"
        "try:\n    build_png(None)\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "MissingExtra" in done.stdout
    assert "pip install 'ktrdr[report]'" in done.stdout
