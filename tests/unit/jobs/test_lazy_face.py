"""``import ktrdr`` is cheap, every name of its face works, and a backtest never loads torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ktrdr


def loaded_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_ktrdr_loads_nothing_heavy() -> None:
    loaded = loaded_after("import ktrdr")
    assert not {"numpy", "polars", "torch", "pydantic", "numba", "onnxruntime"} & loaded
    assert not [name for name in loaded if name.startswith("ktrdr.")]


@pytest.mark.parametrize(
    "room", ["ktrdr.jobs.backtest", "ktrdr.jobs.run", "ktrdr.jobs.signal", "ktrdr.jobs.notebook"]
)
def test_asking_and_simulating_never_import_torch(room: str) -> None:
    loaded = loaded_after(f"import {room}")
    assert room in loaded
    assert not {"torch", "onnx", "safetensors"} & loaded


def test_every_name_of_the_face_is_there() -> None:
    for name in ktrdr.__all__:
        assert getattr(ktrdr, name) is not None
    assert set(ktrdr.__all__) <= set(dir(ktrdr))
    assert ktrdr.indicators.catalog()
    assert ktrdr.__version__[0].isdigit()


def test_the_table_of_homes_and_the_face_agree() -> None:
    assert set(ktrdr._HOMES) | {"__version__"} == set(ktrdr.__all__)
    assert sorted(ktrdr.__all__, key=str.lower) == sorted(set(ktrdr.__all__), key=str.lower)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        ktrdr.trian  # noqa: B018


def test_without_torch_training_says_what_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None
import ktrdr
bars, strategy = ktrdr.load_bars("SP500"), ktrdr.load_strategy("sp500_trend")
try:
    ktrdr.train(strategy, bars)
except ktrdr.errors.MissingExtra as error:
    print("said:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'ktrdr[training]'" in done.stdout
