"""A worker's name lasts over restarts and is never shared by two live processes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ktrdr.errors import InvalidSetting
from ktrdr.operations.model import WorkerType
from ktrdr.workers.identity import claim_identity, new_instance_id


def test_a_restarted_worker_is_the_same_and_two_at_once_are_two(tmp_path: Path) -> None:
    first = claim_identity(tmp_path, WorkerType.BACKTESTING)
    second = claim_identity(tmp_path, WorkerType.BACKTESTING)
    other = claim_identity(tmp_path, WorkerType.TRAINING)
    assert re.fullmatch(r"backtesting-[a-z0-9-]+-[0-9a-f]{6}", first.worker_id)
    assert other.worker_id.startswith("training-")
    assert first.worker_id != second.worker_id
    first.release()
    again = claim_identity(tmp_path, WorkerType.BACKTESTING)
    assert again.worker_id == first.worker_id
    for identity in (again, second, other):
        identity.release()


def test_a_chosen_name_in_use_is_refused(tmp_path: Path) -> None:
    held = claim_identity(tmp_path, WorkerType.BACKTESTING, "mine")
    assert held.folder == tmp_path / "workers" / "mine"
    with pytest.raises(InvalidSetting, match="WORKER_ID"):
        claim_identity(tmp_path, WorkerType.BACKTESTING, "mine")
    held.release()
    claim_identity(tmp_path, WorkerType.BACKTESTING, "mine").release()


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden", "x" * 129])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidSetting, match="not an id"):
        claim_identity(tmp_path, WorkerType.BACKTESTING, name)
    assert not (tmp_path / "workers").exists()


def test_instance_ids_differ() -> None:
    assert new_instance_id("k") != new_instance_id("k")


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    first = claim_identity(tmp_path, WorkerType.BACKTESTING, "mine")
    first.release()
    again = claim_identity(tmp_path, WorkerType.BACKTESTING, "mine")
    assert again.key == first.key
    assert len(bytes.fromhex(first.key)) * 8 == 256
    assert (first.folder / "key").stat().st_mode & 0o777 == 0o600
    assert first.key not in repr(first)
    other = claim_identity(tmp_path, WorkerType.BACKTESTING, "other")
    assert other.key != first.key
    other.release()
    again.release()
    (first.folder / "key").write_text("torn")
    last = claim_identity(tmp_path, WorkerType.BACKTESTING, "mine")
    assert len(last.key) == 64
    last.release()
