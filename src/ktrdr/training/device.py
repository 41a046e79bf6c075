"""Where to train: the device that was asked for, or the CPU with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ktrdr.errors import InvalidInput

__all__ = ["DeviceChoice", "choose_device", "reproducible"]


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """``used`` is what trains; ``note`` says why it is not what was asked for, or is empty."""

    requested: str
    used: str
    note: str = ""

    @property
    def torch_device(self) -> torch.device:
        """The device as torch knows it."""
        return torch.device(self.used)


def available_devices() -> dict[str, bool]:
    """Which kinds of device this process can use."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def choose_device(requested: str, available: dict[str, bool] | None = None) -> DeviceChoice:
    """Pick the device: ``auto`` takes CUDA, then MPS, then the CPU; an absent GPU falls back to the CPU.

    Raises
    ------
    InvalidInput
        If ``requested`` is none of auto, cpu, cuda, mps.
    """
    have = available_devices() if available is None else available
    if requested == "auto":
        return DeviceChoice(requested, next(name for name in ("cuda", "mps", "cpu") if have.get(name)))
    if requested not in ("cpu", "cuda", "mps"):
        raise InvalidInput(f"Unknown device '{requested}'. Accepted: auto, cpu, cuda, mps.")
    if have.get(requested):
        return DeviceChoice(requested, requested)
    return DeviceChoice(requested, "cpu", f"no {requested.upper()} device here; trained on the CPU")


@contextmanager
def reproducible(threads: int, device: str) -> Iterator[None]:
    """Pin torch's threads and, on CUDA, its deterministic kernels; both are put back at the end.

    The number of threads decides how sums are split, so it belongs to what a result depends on.
    """
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it in this mode
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
