"""What this machine offers: cores, memory, GPU. The GPU is asked for in a throw-away process, never in the worker's."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from ktrdr.protocol.messages import Capabilities
from ktrdr.workers.cgroup import core_limit, memory_limit

__all__ = ["GPU_PROBE", "cores_within", "detect_capabilities", "gpu_possible", "package_version"]

_log = logging.getLogger(__name__)
GPU_PROBE = (sys.executable, "-m", "ktrdr.workers.gpu_probe")
_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")


def package_version() -> str:
    """The installed version of ktrdr."""
    try:
        return version("ktrdr")
    except PackageNotFoundError:
        return "0"


def gpu_possible() -> bool:
    """Whether it is worth asking torch, which costs seconds: a driver's device or tool is there, or this is a Mac."""
    return (
        sys.platform == "darwin"
        or any(Path(device).exists() for device in _DEVICES)
        or shutil.which("nvidia-smi") is not None
    )


def cores_within(usable: int, share: float | None) -> int:
    """How many of ``usable`` cores a group keeps busy that may use ``share`` seconds of CPU a second: a part counts as one."""
    return usable if share is None else min(usable, max(1, math.ceil(share)))


def detect_capabilities(
    *, with_gpu: bool, probe: Sequence[str] = GPU_PROBE, timeout_s: float = 20.0, possible: bool | None = None
) -> Capabilities:
    """Look at this machine; takes at most ``timeout_s``, and no time worth naming where no GPU can be.

    Memory and cores are those that this process may use, in a container its share.

    ``with_gpu`` False never starts a process. A probe that fails or is too slow means "no GPU", with a warning.
    """
    memory = min(psutil.virtual_memory().total, memory_limit() or 1 << 60)
    usable = getattr(os, "sched_getaffinity", None)
    cores = cores_within(len(usable(0)) if usable else (os.cpu_count() or 1), core_limit())
    base = Capabilities(cores=cores, memory_gb=round(memory / 2**30, 1), version=package_version())
    if not with_gpu or not (gpu_possible() if possible is None else possible):
        return base
    try:
        done = subprocess.run(list(probe), capture_output=True, text=True, timeout=timeout_s, check=True)  # noqa: S603
        return Capabilities.model_validate(base.model_dump() | json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        _log.warning("GPU detection took longer than %g s; this worker offers its CPU only.", timeout_s)
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        told = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        _log.warning(
            "GPU detection failed (%s); this worker offers its CPU only.", told[-1] if told else error
        )
    return base
