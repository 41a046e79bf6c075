"""Which device trains, and that pinned threads are put back."""

from __future__ import annotations

import pytest
import torch

from ktrdr.errors import InvalidInput
from ktrdr.training.device import available_devices, choose_device, reproducible

BOTH = {"cuda": True, "mps": True, "cpu": True}
NONE = {"cuda": False, "mps": False, "cpu": True}


@pytest.mark.parametrize(
    ("requested", "available", "used"),
    [
        ("auto", BOTH, "cuda"),
        ("auto", BOTH | {"cuda": False}, "mps"),
        ("auto", NONE, "cpu"),
        ("cpu", BOTH, "cpu"),
        ("mps", BOTH, "mps"),
    ],
)
def test_the_device_that_is_there_is_used(requested: str, available: dict[str, bool], used: str) -> None:
    choice = choose_device(requested, available)
    assert (choice.used, choice.note) == (used, "")
    assert choice.torch_device == torch.device(used)


@pytest.mark.parametrize("requested", ["cuda", "mps"])
def test_an_absent_gpu_falls_back_to_the_cpu_and_says_so(requested: str) -> None:
    choice = choose_device(requested, NONE)
    assert choice.used == "cpu"
    assert requested.upper() in choice.note


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'tpu'"):
        choose_device("tpu")


def test_the_cpu_is_always_there() -> None:
    assert available_devices()["cpu"]
    assert choose_device("auto").used in ("cpu", "cuda", "mps")


def test_threads_are_pinned_inside_and_put_back_after() -> None:
    before = torch.get_num_threads()
    with reproducible(before + 1, "cpu"):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), reproducible(before + 1, "cpu"):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_cuda_is_told_to_be_deterministic_and_the_mode_is_put_back() -> None:
    with reproducible(1, "cuda"):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
