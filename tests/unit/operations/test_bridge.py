from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ktrdr.errors import InvalidInput, NotFound
from ktrdr.operations.bridge import PUBLISH_EVERY_S, ProgressBridge
from ktrdr.operations.progress import Metric, Progress
from ktrdr.testing.clock import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scratch" / "bridge"


def test_nothing_is_read_before_the_first_update(path: Path) -> None:
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        assert reader.read() is None
        assert writer.read() is None


def test_progress_arrives_as_it_was_said(path: Path) -> None:
    said = Progress(3, 10, "bar 3 – grün", {"pnl": -1.5, "date": None, "open": True, "n": 7, "s": "ü"})
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        writer.update(said)
        assert reader.read() == said


def test_the_count_travels_at_once_and_words_a_little_later(path: Path) -> None:
    clock = FakeClock()
    with (
        ProgressBridge.create(path, monotonic=clock.monotonic) as writer,
        ProgressBridge.open(path) as reader,
    ):
        writer.update(Progress(1, 10, "one", {"n": 1}))
        clock.advance(PUBLISH_EVERY_S * 0.9)
        writer.update(Progress(2, 10, "two", {"n": 2}))
        assert reader.read() == Progress(2, 10, "one", {"n": 1})
        clock.advance(PUBLISH_EVERY_S * 0.2)
        writer.update(Progress(3, 10, "three", {"n": 3}))
        assert reader.read() == Progress(3, 10, "three", {"n": 3})


def test_a_new_total_is_published_at_once(path: Path) -> None:
    clock = FakeClock()
    with (
        ProgressBridge.create(path, monotonic=clock.monotonic) as writer,
        ProgressBridge.open(path) as reader,
    ):
        writer.update(Progress(10, 10, "features"))
        writer.update(Progress(0, 500, "simulating"))
        assert reader.read() == Progress(0, 500, "simulating")


def test_flush_and_close_publish_what_is_newest(path: Path) -> None:
    clock = FakeClock()
    with ProgressBridge.open(ProgressBridge.create(path).path) as reader:
        writer = ProgressBridge.open(path, monotonic=clock.monotonic)
        writer.update(Progress(1, 10, "one"))
        writer.update(Progress(2, 10, "two"))
        writer.flush()
        writer.flush()
        assert reader.read() == Progress(2, 10, "two")
        writer.update(Progress(9, 10, "nine"))
        writer.close()
        writer.close()
        assert reader.read() == Progress(9, 10, "nine")


def test_a_host_that_closes_changes_nothing(path: Path) -> None:
    with ProgressBridge.create(path) as writer:
        writer.update(Progress(1, 10, "one"))
        ProgressBridge.open(path).close()
        assert writer.read() == Progress(1, 10, "one")


def test_numpy_counts_and_values_are_welcome(path: Path) -> None:
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        writer.update(
            Progress(np.int64(3), np.int32(10), "x", {"loss": np.float32(0.5), "nan": float("nan")})
        )
        assert reader.read() == Progress(3, 10, "x", {"loss": 0.5, "nan": None})


def test_progress_too_large_for_a_snapshot_loses_its_context_not_the_job(path: Path) -> None:
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        writer.update(Progress(1, 10, "m" * 5_000, {"x": "y" * 100_000}))
        seen = reader.read()
        assert seen is not None
        assert (seen.items_done, seen.message) == (1, "m" * 500)
        assert seen.context == {"context_left_out": "larger than a snapshot"}


def test_the_longest_message_fits_in_any_script(path: Path) -> None:
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        writer.update(Progress(1, 10, "\U0001f600" * 500, {}))
        seen = reader.read()
        assert seen is not None
        assert seen.message == "\U0001f600" * 500


def test_cancel_is_seen_and_stays(path: Path) -> None:
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as host:
        assert not writer.cancelled
        host.request_cancel()
        host.request_cancel()
        assert writer.cancelled
        writer.update(Progress(1, 10))
        assert writer.cancelled


def test_a_cancel_before_the_job_starts_is_not_lost(path: Path) -> None:
    with ProgressBridge.create(path) as host:
        host.request_cancel()
        with ProgressBridge.open(path) as writer:
            assert writer.cancelled


def test_a_torn_snapshot_is_never_given_out(path: Path) -> None:
    """A writer killed in the middle of a snapshot: the one before is still whole."""
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        writer.update(Progress(1, 10, "whole"))
        next_slot = 64  # sequence 1 stands in slot 1, so the next goes into slot 0
        with path.open("r+b") as file:
            file.seek(next_slot)
            file.write(b"\xff" * 400)
        assert reader.read() == Progress(1, 10, "whole")


def test_damage_is_noticed_by_its_checksum(path: Path) -> None:
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        writer.update(Progress(1, 10, "one"))
        assert reader.read() == Progress(1, 10, "one")
        writer.update(Progress(2, 11, "two"))
        with path.open("r+b") as file:
            file.seek(64 + 16 + 3)  # into the payload of sequence 2
            file.write(b"?")
        assert reader.read() == Progress(1, 10, "one"), "what it saw last"
        with ProgressBridge.open(path) as newcomer:
            assert newcomer.read() is None
        with path.open("r+b") as file:
            file.seek(64)
            file.write((1 << 40).to_bytes(8, "little"))  # an impossible length
        assert reader.read() == Progress(1, 10, "one")


def test_only_bridges_are_opened(path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="progress bridge"):
        ProgressBridge.open(path)
    for content in (b"", b"x", b"x" * 32_832, os.urandom(100)):
        other = tmp_path / "other"
        other.write_bytes(content)
        with pytest.raises(InvalidInput, match="is not a progress bridge"):
            ProgressBridge.open(other)


def test_create_starts_afresh(path: Path) -> None:
    with ProgressBridge.create(path) as old:
        old.update(Progress(1, 10))
        old.append(Metric({"epoch": 1}))
        old.request_cancel()
    with ProgressBridge.create(path) as fresh:
        assert fresh.read() is None
        assert not fresh.cancelled
        assert fresh.metrics() == ([], 0)
    assert sorted(file.name for file in path.parent.iterdir()) == ["bridge"]


def test_metrics_are_read_by_cursor(path: Path) -> None:
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        assert reader.metrics(0) == ([], 0)
        for epoch in range(5):
            writer.append(Metric({"epoch": epoch, "loss": 1 / (epoch + 1)}))
        first, cursor = reader.metrics(0, limit=2)
        assert ([record["epoch"] for record in first], cursor) == ([0, 1], 2)
        rest, cursor = reader.metrics(cursor)
        assert ([record["epoch"] for record in rest], cursor) == ([2, 3, 4], 5)
        assert reader.metrics(cursor) == ([], 5)
        writer.append(Metric({"epoch": 5}))
        assert reader.metrics(cursor) == ([{"epoch": 5}], 6)
        assert reader.metrics(-3, limit=1)[1] == 1
        assert reader.metrics(99) == ([], 99)
        assert reader.metrics(0, limit=-1) == ([], 0)


def test_a_torn_tail_is_no_record_until_it_is_whole(path: Path) -> None:
    log = path.with_name("bridge.metrics")
    with ProgressBridge.create(path) as writer, ProgressBridge.open(path) as reader:
        writer.append(Metric({"epoch": 0}))
        with log.open("ab") as file:
            file.write(b'{"epoch":')
        assert reader.metrics(0) == ([{"epoch": 0}], 1)
        with log.open("ab") as file:
            file.write(b"1}\n")
        assert reader.metrics(0) == ([{"epoch": 0}, {"epoch": 1}], 2)


def test_a_new_writer_goes_on_after_a_torn_line(path: Path) -> None:
    log = path.with_name("bridge.metrics")
    with ProgressBridge.create(path) as writer:
        writer.append(Metric({"epoch": 0}))
    with log.open("ab") as file:
        file.write(b'{"epoch": 1, "lo')
    with ProgressBridge.open(path) as again:
        again.append(Metric({"epoch": 1}))
        again.append(Metric({"epoch": 2}))
        assert again.metrics(0) == ([{"epoch": 0}, {"epoch": 1}, {"epoch": 2}], 3)
