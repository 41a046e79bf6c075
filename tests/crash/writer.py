"""What is killed: a job that is checkpointed after each step and stores artifacts, by the code that workers run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.clock import SystemClock
from ktrdr.jobs.checkpoint import Checkpoint, ResumePoint
from ktrdr.jobs.environment import Job, JobResult
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.settings import CheckpointSettings
from ktrdr.snapshot import Snapshot
from ktrdr.workers.checkpoints import CheckpointKeeper, JobIdentity
from ktrdr.workers.child import drain
from ktrdr.workers.runfolder import RunFolder

__all__ = ["KIND", "SPEC", "payload", "write"]

KIND, SPEC = "backtesting", sha256_of(b"the specification")
_LARGEST = 1 << 20
_CHUNK = 64 << 10


def payload(number: int, size_seed: int) -> npt.NDArray[np.uint8]:
    """The bytes that belong to ``number``: 1 KiB to 1 MiB, the same whoever makes them."""
    random = np.random.default_rng((number, size_seed))
    return random.integers(0, 256, int(random.integers(1 << 10, _LARGEST)), dtype=np.uint8)


def write(store: FileArtifactStore, folder: RunFolder, known: tuple[str, ...], told: int) -> None:
    """Go on from the newest of ``known`` for ever; each step that is durable is told to the pipe ``told``."""
    keeper = CheckpointKeeper(
        cache=store,
        artifacts=store,
        folder=folder,
        job=JobIdentity("op", 1, KIND, SPEC),
        settings=CheckpointSettings(every_s=0.0, every_bars=1),
        clock=SystemClock(),
    )
    begin = 0
    for digest, checkpoint in keeper.usable(known):
        keeper.go_on(digest, checkpoint)
        begin = checkpoint.done
        break
    _tell(told, f"from {begin}")
    bridge = ProgressBridge.create(folder.root / "progress")
    drain(_steps(store, begin, told), bridge, keeper)


def _steps(store: FileArtifactStore, begin: int, told: int) -> Job:
    number = begin
    while True:
        number += 1
        content = payload(number, 1)
        yield ResumePoint(
            number,
            1 << 40,
            "bars",
            lambda: Snapshot({"number": number}, {"payload": content}),  # noqa: B023
        )
        _tell(told, f"checkpoint {number}")
        artifact = payload(number, 2).tobytes()
        store.put_stream(_chunks(artifact), digest := sha256_of(artifact))
        _tell(told, f"artifact {digest}")
    return JobResult()


def _chunks(content: bytes) -> Iterator[bytes]:
    for first in range(0, len(content), _CHUNK):
        yield content[first : first + _CHUNK]


def _tell(told: int, line: str) -> None:
    os.write(told, f"{line}\n".encode())


def read(store: FileArtifactStore, digest: str) -> Checkpoint:
    """The checkpoint, as the next attempt reads it."""
    return Checkpoint.read(store, digest, kind=KIND, spec_digest=SPEC)


def home(root: Path) -> tuple[FileArtifactStore, RunFolder]:
    """Store and run folder below ``root``."""
    folder = RunFolder(root / "run")
    folder.root.mkdir(parents=True, exist_ok=True)
    return FileArtifactStore(root / "artifacts"), folder
