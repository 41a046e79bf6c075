"""What a machine offers; the GPU is asked for in another process, and only where one can be."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import pytest

from ktrdr.workers.capabilities import (
    GPU_PROBE,
    cores_within,
    detect_capabilities,
    gpu_possible,
    package_version,
)
from ktrdr.workers.cgroup import core_limit
from ktrdr.workers.gpu_probe import from_nvidia_smi, parse_nvidia_smi


def saying(text: str) -> list[str]:
    return [sys.executable, "-c", f"print({text!r})"]


def test_cores_memory_and_version_without_a_process() -> None:
    found = detect_capabilities(with_gpu=False, probe=["/no/such/program"], possible=True)
    assert found.cores == cores_within(len(os.sched_getaffinity(0)), core_limit())
    assert found.memory_gb > 0.1
    assert found.version == package_version()
    assert not found.gpu


@pytest.mark.parametrize(("share", "cores"), [(None, 4), (0.01, 1), (1.0, 1), (1.5, 2), (4.0, 4), (64.0, 4)])
def test_cores_are_those_of_the_container(share: float | None, cores: int) -> None:
    assert cores_within(4, share) == cores


def test_no_probe_where_no_gpu_can_be() -> None:
    assert not detect_capabilities(with_gpu=True, probe=["/no/such/program"], possible=False).gpu


def test_a_gpu_that_the_probe_names() -> None:
    answer = {"gpu": True, "gpu_type": "CUDA", "gpu_count": 2, "gpu_memory_gb": 80.0}
    found = detect_capabilities(with_gpu=True, probe=saying(json.dumps(answer)), possible=True)
    assert (found.gpu, found.gpu_type, found.gpu_count, found.gpu_memory_gb) == (True, "CUDA", 2, 80.0)


@pytest.mark.parametrize(
    "probe",
    [
        saying("nonsense"),
        saying('{"gpu_type": "ABACUS"}'),
        saying(""),
        ["/no/such/program"],
        [sys.executable, "-c", "raise SystemExit('driver mismatch')"],
        [sys.executable, "-c", "import time; time.sleep(600)"],
    ],
)
def test_a_probe_that_fails_means_cpu_with_a_warning(
    probe: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert not detect_capabilities(with_gpu=True, probe=probe, timeout_s=1.0, possible=True).gpu
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_real_probe_agrees_with_this_machine() -> None:
    if gpu_possible():
        pytest.skip("this machine has a GPU or is a Mac")
    found = detect_capabilities(with_gpu=True, probe=GPU_PROBE, timeout_s=120.0, possible=True)
    assert (found.gpu, found.gpu_type) == (False, None)


def test_nvidia_smi_is_read() -> None:
    assert parse_nvidia_smi("81559\n81559\n") == {
        "gpu": True, "gpu_type": "CUDA", "gpu_count": 2, "gpu_memory_gb": 79.6,
    }  # fmt: skip
    assert not parse_nvidia_smi("No devices were found")["gpu"]


def test_nvidia_smi_absent_failing_and_working(tmp_path: Path) -> None:
    assert not from_nvidia_smi("no-such-program")["gpu"]
    program = tmp_path / "smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    assert not from_nvidia_smi(str(program))["gpu"]
    program.write_text("#!/bin/sh\necho 1024\n")
    assert from_nvidia_smi(str(program))["gpu_memory_gb"] == 1.0
