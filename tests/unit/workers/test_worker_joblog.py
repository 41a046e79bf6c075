"""A job's log: whole while it is short; its beginning and its end, and little of the disk, however much is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.logs import Redaction
from ktrdr.workers.joblog import JobLog

PLAIN = Redaction()
MB = 1 << 20


def numbered(count: int, first: int = 0) -> bytes:
    return b"".join(b"line %09d\n" % number for number in range(first, first + count))


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def small(path: Path, *, punch: bool) -> JobLog:
    return JobLog(path, head=MB // 8, tail=MB // 8, room=MB, punch=punch)


def test_a_short_log_is_whole_and_secrets_are_masked_where_a_cut_divides_them(tmp_path: Path) -> None:
    log = JobLog(tmp_path / "log")
    assert (log.size(), log.piece(0, 10, PLAIN), log.whole(PLAIN), log.relieve()) == (0, (0, b""), b"", 0)
    (tmp_path / "log").write_bytes(b"0123456789")
    assert log.size() == 10
    assert (log.piece(6, 99, PLAIN), log.piece(2, 3, PLAIN)) == ((6, b"6789"), (2, b"234"))
    pieces = [log.piece(first, 2, Redaction("34567"))[1] for first in range(0, 10, 2)]
    assert b"".join(pieces) == b"012*****89"
    assert log.whole(Redaction("34567")) == b"012*****89"


@pytest.mark.parametrize("punch", [True, False])
def test_a_long_log_takes_little_of_the_disk_and_keeps_both_ends(tmp_path: Path, punch: bool) -> None:
    path = tmp_path / "log"
    log = small(path, punch=punch)
    printed, most = b"", 0
    with path.open("ab") as file:  # held open, as by the job
        for turn in range(60):
            part = numbered(20_000, 20_000 * turn)
            file.write(part)
            file.flush()
            printed += part
            log.relieve()
            most = max(most, path.stat().st_blocks * 512)
    assert most < 2 * MB
    assert log.size() == len(printed)
    whole = log.whole(PLAIN)
    head, note, tail = whole.partition(b"\n[... ")
    assert printed.startswith(head)
    assert len(head) == MB // 8 - PLAIN.margin
    count, _, rest = tail.partition(b" bytes are left out here: the job printed too much ...]\n")
    assert note
    assert rest
    assert printed.endswith(rest)
    assert int(count) == len(printed) - len(head) - len(rest)
    assert MB // 8 - PLAIN.margin <= len(rest) <= MB // 8
    assert b"\0" not in whole


@pytest.mark.parametrize("punch", [True, False])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whoever_reads_on_gets_what_is_there_in_its_place(
    tmp_path_factory: pytest.TempPathFactory, punch: bool, data: st.DataObject
) -> None:
    """The law of pieces: each is what was printed at its position, never a hole's zeros, never half a secret."""
    path = tmp_path_factory.mktemp("log") / "log"
    log = JobLog(path, head=5_000, tail=70_000, room=200_000, punch=punch)
    redaction = Redaction("secret-word")
    printed = bytearray()
    position, seen = 0, 0
    for _ in range(data.draw(st.integers(3, 12))):
        part = b"".join(b"secret-word %d\n" % n for n in range(data.draw(st.integers(0, 9_000))))
        append(path, part)
        printed += part
        log.relieve()
        while True:
            start, piece = log.piece(position, data.draw(st.integers(1, 90_000)), redaction)
            assert start >= position
            assert redaction.bytes(bytes(printed))[start : start + len(piece)] == piece
            position = start + len(piece)
            seen += len(piece)
            if not piece:
                break
        assert position == len(printed)
        assert b"secret" not in log.whole(redaction)
    assert seen <= len(printed)
