"""The files of the audit record under several processes, full disks, kills, and clocks that are set."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from ktrdr.backend.access.audit import AuditLog
from ktrdr.testing.clock import FakeClock

WRITER = """
import asyncio, os, sys
from pathlib import Path
from ktrdr.backend.access.audit import AuditLog
from ktrdr.clock import SystemClock

async def main(folder, name, count):
    log = AuditLog(Path(folder), SystemClock(), file_bytes=4000, files=1000)
    for number in range(count):
        log.append(who=name, address="a", what="x", subject=f"{name}-{number}", outcome=200)
        os.write(1, f"{name}-{number}\\n".encode())
        if number == 20:
            sys.stdin.read(1)
        await asyncio.sleep(0)
    await log.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""
FULL = """
import asyncio, resource, sys
from pathlib import Path
from ktrdr.backend.access.audit import AuditLog
from ktrdr.clock import SystemClock

def limit(size):  # beyond it the kernel writes a part of a line, then nothing
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def record(log, subject):
    log.append(who="w", address="a", what="x", subject=subject, outcome=200)

async def main(folder):
    log = AuditLog(Path(folder), SystemClock())
    record(log, "before")
    limit(1000)
    for number in range(20):
        record(log, f"full-{number}")
    limit(resource.RLIM_INFINITY)
    record(log, "after")
    await log.close()

asyncio.run(main(sys.argv[1]))
"""


def entry(log: AuditLog, subject: str) -> None:
    log.append(who="w", address="a", what="x", subject=subject, outcome=200)


async def subjects(folder: Path, page: int = 10_000) -> list[str]:
    """Newest first, page by page."""
    log, found, cursor = AuditLog(folder, FakeClock()), list[str](), None
    while True:
        told = await log.page(None, page, cursor)
        found += [e.subject for e in told.entries]
        cursor = told.next_cursor
        if cursor is None:
            return found


async def _record_once(folder: Path) -> None:
    log = AuditLog(folder, FakeClock())
    entry(log, "who comes next writes on in a file that is free")
    await log.close()


def lines(folder: Path) -> list[str]:
    """The subject of every line of every file; fails where one is torn."""
    files = [path for path in folder.iterdir() if path.suffix == ".jsonl"]
    return [json.loads(line)["subject"] for path in files for line in path.read_bytes().splitlines()]


def test_processes_write_at_once_and_one_is_killed(tmp_path: Path) -> None:
    folder, count = tmp_path / "audit", 200
    writers = {
        name: subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), name, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("a", "b", "c")
    }
    for name, writer in writers.items():  # each has a file, and files of each were begun anew
        assert writer.stdout is not None
        assert [writer.stdout.readline().decode().strip() for _ in range(21)][-1] == f"{name}-20"
    assert {path.name for path in folder.glob("audit*.jsonl") if "-" not in path.name} == {
        "audit.jsonl",
        "audit.2.jsonl",
        "audit.3.jsonl",
    }
    writers["b"].send_signal(signal.SIGKILL)
    told = [f"b-{number}" for number in range(21)]
    for name in ("a", "c"):
        output, _ = writers[name].communicate(b"x", 60)
        assert writers[name].returncode == 0
        told += [f"{name}-{number}" for number in range(21)] + output.decode().split()
    writers["b"].communicate()
    assert len(told) == 2 * count + 21
    assert sorted(lines(folder)) == sorted(told)
    assert sorted(asyncio.run(subjects(folder, page=77))) == sorted(told), (
        "every page together list each entry once"
    )
    asyncio.run(_record_once(folder))
    assert not (folder / "audit.4.jsonl").exists()


def test_a_full_disk_tears_no_line_and_what_it_did_not_take_is_in_the_log(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    kept = lines(tmp_path)
    assert kept[0] == "before"
    assert kept[-1] == "after"
    logged = [f"full-{number}" for number in range(20) if f'"subject": "full-{number}"' in done.stderr]
    assert kept[1:-1] + logged == [f"full-{number}" for number in range(20)]
    assert logged, "the limit was not reached"
    assert "The audit record cannot be written" in done.stderr


async def test_clocks_that_are_set_lose_no_file(tmp_path: Path) -> None:
    clock = FakeClock()
    log = AuditLog(tmp_path, clock, file_bytes=300, files=50)
    for number in range(12):
        entry(log, f"{number:02d}")
        if number in (4, 8):
            clock.jump(-3600)  # and it stands still otherwise: all files are begun in one microsecond
    await log.close()
    assert sorted(await subjects(tmp_path)) == [f"{number:02d}" for number in range(12)]


async def test_with_a_clock_that_was_set_back_the_oldest_files_go_not_the_newest(tmp_path: Path) -> None:
    clock = FakeClock()
    log = AuditLog(tmp_path, clock, file_bytes=300, files=2)
    for number in range(12):
        entry(log, f"{number:02d}")
        clock.jump(-3600 if number == 6 else 1)
    await log.close()
    kept = sorted(await subjects(tmp_path))
    assert 2 < len(kept) < 12
    assert kept == [f"{number:02d}" for number in range(12 - len(kept), 12)]


async def test_a_file_that_was_removed_or_moved_away_is_begun_anew(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, FakeClock(), file_bytes=300)
    entry(log, "gone with its file")
    (tmp_path / "audit.jsonl").unlink()
    entry(log, "one")
    os.rename(tmp_path / "audit.jsonl", tmp_path / "shipped")
    for word in ("two", "three", "four", "five"):
        entry(log, word)
    await log.close()
    shipped = [json.loads(line)["subject"] for line in (tmp_path / "shipped").read_bytes().splitlines()]
    kept = shipped + list(reversed(await subjects(tmp_path)))
    assert kept == ["one", "two", "three", "four", "five"]
    assert len(shipped) < 5
