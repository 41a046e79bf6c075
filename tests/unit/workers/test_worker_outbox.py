"""The outbox keeps what the backend has not acknowledged."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ktrdr.protocol.messages import DeliverRequest
from ktrdr.workers.outbox import Outbox, entry_key


def delivery(name: str, attempt: int = 1, **extra: object) -> DeliverRequest:
    return DeliverRequest(operation_id=name, attempt=attempt, status="completed", **extra)  # type: ignore[arg-type]


def test_entries_survive_and_come_oldest_first(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for at, name in enumerate(["zeta", "alpha", "mid.dle"]):
        outbox.add(delivery(name, summary={"a": at}))
        os.utime(tmp_path / f"{name}.1.json", ns=(at, at))
    again = Outbox(tmp_path)
    assert [(entry.operation_id, entry.summary) for entry in again.entries()] == [
        ("zeta", {"a": 0}), ("alpha", {"a": 1}), ("mid.dle", {"a": 2}),
    ]  # fmt: skip


def test_attempts_are_apart_and_the_same_is_replaced(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(delivery("op", 1))
    outbox.add(delivery("op", 2))
    outbox.add(delivery("op", 2, error="newer"))
    assert {entry_key(entry): entry.error for entry in outbox.entries()} == {"op:1": None, "op:2": "newer"}
    outbox.remove("op:2")
    outbox.remove("op:2")
    assert [entry_key(entry) for entry in outbox.entries()] == ["op:1"]


def test_set_aside_keeps_the_file(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(delivery("op"))
    outbox.set_aside("op:1")
    outbox.set_aside("op:1")
    assert outbox.entries() == []
    assert [file.name for file in tmp_path.iterdir()] == ["op.1.refused"]


def test_an_unreadable_file_is_set_aside_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(delivery("good"))
    (tmp_path / "bad.1.json").write_text("{")
    assert [entry.operation_id for entry in outbox.entries()] == ["good"]
    assert (tmp_path / "bad.1.unreadable").exists()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_what_the_disk_does_not_take_is_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "outbox"
    outbox = Outbox(folder)
    folder.rmdir()
    folder.write_text("no folder any more")
    outbox.add(delivery("op"))
    assert [entry.operation_id for entry in outbox.entries()] == ["op"]
    assert "in memory only" in caplog.text
    folder.unlink()
    folder.mkdir()
    outbox.add(delivery("op", error="newer"))
    assert [entry.error for entry in outbox.entries()] == ["newer"]
    outbox.remove("op:1")
    assert (outbox.entries(), list(folder.iterdir())) == ([], [])
    folder.rmdir()
    folder.write_text("gone again")
    outbox.add(delivery("op"))
    outbox.set_aside("op:1")
    outbox.add(delivery("other"))
    outbox.remove("other:1")
    assert outbox.entries() == []


def test_entries_may_be_acknowledged_while_they_are_read(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    names = [f"op{number}" for number in range(300)]
    for name in names:
        outbox.add(delivery(name))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: [len(outbox.entries()) for _ in range(10)])
        for name in names:
            outbox.remove(f"{name}:1")
        assert reading.result()[-1] == 0 or outbox.entries() == []


def test_torn_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".part-xyz").write_text("{")
    Outbox(tmp_path)
    assert list(tmp_path.iterdir()) == []
