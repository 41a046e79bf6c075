"""A training worker that declares a GPU which this machine may not have; the tests of selection start it."""

from __future__ import annotations

from ktrdr.protocol.messages import Capabilities
from ktrdr.workers.kinds import run_worker

if __name__ == "__main__":
    declared = Capabilities(cores=2, memory_gb=8.0, gpu=True, gpu_type="CUDA", gpu_count=1, gpu_memory_gb=8.0)
    run_worker("training", capabilities=declared)
