"""Says which GPU torch can use, as one line of JSON; run in a throw-away process, because asking initialises the GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

__all__ = ["from_nvidia_smi", "from_torch", "parse_nvidia_smi"]

_NONE: dict[str, Any] = {"gpu": False, "gpu_type": None, "gpu_count": 0, "gpu_memory_gb": 0.0}


def from_torch() -> dict[str, Any] | None:
    """What torch sees, or None where torch is not installed."""
    try:
        import torch  # heavy, and the reason for this process
    except ImportError:
        return None
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        total = sum(torch.cuda.get_device_properties(i).total_memory for i in range(count))
        return {
            "gpu": True,
            "gpu_type": "CUDA",
            "gpu_count": count,
            "gpu_memory_gb": round(total / count / 2**30, 1),
        }
    if torch.backends.mps.is_available():
        limit = torch.mps.recommended_max_memory()
        return {"gpu": True, "gpu_type": "MPS", "gpu_count": 1, "gpu_memory_gb": round(limit / 2**30, 1)}
    return dict(_NONE)


def from_nvidia_smi(program: str = "nvidia-smi") -> dict[str, Any]:
    """What the driver's tool lists; no GPU where it is absent or fails."""
    if shutil.which(program) is None:
        return dict(_NONE)
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return dict(_NONE)
    return parse_nvidia_smi(answer.stdout)


def parse_nvidia_smi(text: str) -> dict[str, Any]:
    """One line per GPU: its memory in MiB."""
    sizes = [float(line) for line in text.split() if line.replace(".", "", 1).isdigit()]
    if not sizes:
        return dict(_NONE)
    mean_gb = round(sum(sizes) / len(sizes) / 1024, 1)
    return {"gpu": True, "gpu_type": "CUDA", "gpu_count": len(sizes), "gpu_memory_gb": mean_gb}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(from_torch() or from_nvidia_smi()) + "\n")
