"""The bridge between two real processes: no torn readings, a cancel that arrives, a writer that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.progress import Progress

pytestmark = pytest.mark.integration

WRITER = """
import sys
from pathlib import Path
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.progress import Metric, Progress

bridge = ProgressBridge.open(Path(sys.argv[1]))
for number in range(1, 10_000_001):
    text = str(number) * (number % 60)
    bridge.update(Progress(number, 10_000_000, text, {"number": number, "text": text}))
    bridge.flush()
    if number % 10 == 0:
        bridge.append(Metric({"number": number, "text": text}))
    if bridge.cancelled and number >= int(sys.argv[2]):
        break
bridge.close()
"""


@contextmanager
def writing(path: Path, at_least: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes until it is cancelled, but so many updates in any case."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(at_least)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def check(seen: Progress) -> None:
    """All parts are of one update; ``items_done`` may be newer, by a stage of the writer at most."""
    number = seen.context["number"]
    assert isinstance(number, int)
    assert seen.message == seen.context["text"] == str(number) * (number % 60)
    assert seen.items_done >= number


def test_a_reader_never_sees_a_mixture(tmp_path: Path) -> None:
    path, updates = tmp_path / "bridge", 60_000
    with ProgressBridge.create(path) as reader, writing(path, updates) as process:
        readings, last, cursor = set(), 0, 0
        while process.poll() is None:
            if len(readings) > 20:
                reader.request_cancel()  # it ends when it is read while it writes, whoever of the two is slow
            seen = reader.read()
            if seen is None:
                continue
            check(seen)
            assert seen.items_done >= last
            last = seen.items_done
            readings.add(last)
            records, cursor = reader.metrics(cursor)
            assert all(
                record["text"] == str(record["number"]) * (record["number"] % 60) for record in records
            )
        assert process.returncode == 0
        assert len(readings) > 20, "the reader really read while the writer wrote"
        final = reader.read()
        assert final is not None
        assert final.items_done == final.context["number"] >= updates
        while (page := reader.metrics(cursor))[0]:
            cursor = page[1]
        assert cursor == final.items_done // 10


def test_a_cancel_reaches_the_job(tmp_path: Path) -> None:
    path = tmp_path / "bridge"
    with ProgressBridge.create(path) as host, writing(path) as process:
        while host.read() is None:
            assert process.poll() is None
        host.request_cancel()
        assert process.wait(30) == 0
        seen = host.read()
        assert seen is not None
        assert seen.items_done < 10_000_000


def test_a_killed_writer_leaves_its_last_word(tmp_path: Path) -> None:
    path = tmp_path / "bridge"
    with ProgressBridge.create(path) as host, writing(path) as process:
        while (seen := host.read()) is None or seen.items_done < 1_000:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        with ProgressBridge.open(path) as newcomer:
            word = newcomer.read()
        assert word is not None
        check(word)
        assert word.items_done >= 1_000
        records, _ = host.metrics(0, limit=100)
        assert [record["number"] for record in records] == list(range(10, 1_001, 10))
