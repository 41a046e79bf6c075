"""Which checkpoints a job goes on from, and that it then ends as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.errors import CorruptArtifact, NotFound, UnusableCheckpoint
from ktrdr.jobs.checkpoint import FORMATS, Checkpoint
from ktrdr.snapshot import Snapshot, pack

SPEC = sha256_of(b"the specification")
CHECKPOINT = Checkpoint(
    format=FORMATS["training"],
    spec_digest=SPEC,
    operation_id="op",
    attempt=2,
    done=6,
    total=20,
    unit="epochs",
    metrics=({"epoch": 6, "val_loss": 0.1 + 0.2, "improved": True},),
    snapshot=Snapshot({"steps": 7}, {"weights": np.arange(3, dtype=np.float32)}),
)


def read(store: FileArtifactStore, digest: str) -> Checkpoint:
    return Checkpoint.read(store, digest, kind="training", spec_digest=SPEC)


def test_it_comes_back_exactly(store: FileArtifactStore) -> None:
    back = read(store, store.put(CHECKPOINT.to_bytes()))
    same = {"snapshot": CHECKPOINT.snapshot}
    assert repr(replace(back, **same)) == repr(CHECKPOINT)
    assert back.snapshot.values == CHECKPOINT.snapshot.values
    assert back.snapshot.arrays["weights"].tolist() == [0.0, 1.0, 2.0]
    assert back.to_bytes() == CHECKPOINT.to_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"format": "training/0"},
            "has the format 'training/0'; this version of ktrdr goes on from 'training/1'",
        ),
        ({"format": "backtesting/1"}, "has the format 'backtesting/1'"),
        ({"spec_digest": sha256_of(b"another")}, "belongs to another job"),
    ],
)
def test_what_another_job_or_version_wrote_is_refused(
    store: FileArtifactStore, change: dict[str, str], told: str
) -> None:
    digest = store.put(replace(CHECKPOINT, **change).to_bytes())
    with pytest.raises(UnusableCheckpoint, match=told):
        read(store, digest)


@pytest.mark.parametrize(
    "content", [b"hello", pack(Snapshot({"checkpoint": {}})), pack(Snapshot({"checkpoint": 1, "state": {}}))]
)
def test_what_is_no_checkpoint_is_refused(store: FileArtifactStore, content: bytes) -> None:
    with pytest.raises(UnusableCheckpoint, match="is not a checkpoint"):
        read(store, store.put(content))


def test_a_missing_one_and_every_flipped_bit_are_refused(store: FileArtifactStore) -> None:
    content = CHECKPOINT.to_bytes()
    digest = sha256_of(content)
    with pytest.raises(NotFound):
        read(store, digest)
    store.put(content)
    file = store.location(digest)
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(bytes(damaged))
        with pytest.raises(CorruptArtifact):
            read(store, digest)
    file.write_bytes(content[:-1])
    with pytest.raises(CorruptArtifact):
        read(store, digest)
