"""Content-addressed files: idempotent, durable, verified, confined."""

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from ktrdr.artifacts import FileArtifactStore, check_digest, sha256_of
from ktrdr.errors import CorruptArtifact, InvalidInput, NotFound


@pytest.fixture
def store(tmp_path: Path) -> FileArtifactStore:
    return FileArtifactStore(tmp_path / "artifacts")


def test_what_is_put_is_found_under_its_digest(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    assert digest == hashlib.sha256(b"bars").hexdigest() == sha256_of(b"bars")
    assert store.has(digest)
    assert store.read(digest) == b"bars"
    assert store.path(digest).read_bytes() == b"bars"


def test_putting_again_changes_nothing(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    os.utime(store.location(digest), (1.0, 1.0))
    before = store.location(digest).stat()
    assert store.put(b"bars") == digest
    after = store.location(digest).stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime > before.st_mtime  # except that it counts as used
    assert list(store.digests()) == [digest]


def test_a_stream_with_another_digest_leaves_nothing_behind(store: FileArtifactStore) -> None:
    claimed = sha256_of(b"expected")
    with pytest.raises(CorruptArtifact, match=f"expected {claimed}; not stored"):
        store.put_stream([b"some", b"thing"], claimed)
    assert not store.has(claimed)
    assert [file for file in store.root.rglob("*") if file.is_file()] == []


def test_a_stream_may_come_in_parts(store: FileArtifactStore) -> None:
    digest = sha256_of(b"abc")
    store.put_stream([b"a", b"", b"bc"], digest)
    assert store.read(digest) == b"abc"


def test_damage_on_disk_is_told_and_not_used(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    store.location(digest).write_bytes(b"bart")
    with pytest.raises(CorruptArtifact, match="Delete the file"):
        store.read(digest)
    with pytest.raises(CorruptArtifact):
        store.path(digest)


def test_putting_again_repairs_what_is_damaged(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    store.location(digest).write_bytes(b"bart")
    assert store.has(digest)
    assert not store.intact(digest)
    assert store.put(b"bars") == digest
    assert store.read(digest) == b"bars"
    assert store.intact(digest)
    assert not store.intact("0" * 64)


def test_what_a_killed_writer_left_is_cleared_once_it_is_old(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    for name, age_s in ((".part-old", 7200), (".part-new", 0)):
        torn = store.location(digest).with_name(name)
        torn.write_bytes(b"ba")
        os.utime(torn, (time.time() - age_s,) * 2)
    assert store.clear_torn() == 1
    assert {file.name for file in store.root.rglob("*") if file.is_file()} == {digest, ".part-new"}


def test_a_missing_artifact(store: FileArtifactStore) -> None:
    absent = "0" * 64
    assert not store.has(absent)
    with pytest.raises(NotFound, match=absent):
        store.read(absent)
    store.delete(absent)


def test_deleted_is_gone(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    store.delete(digest)
    assert not store.has(digest)
    assert list(store.digests()) == []


@pytest.mark.parametrize(
    "text", ["", "../../etc/passwd", "0" * 63, "G" * 64, "0" * 64 + "\n", "A" * 64, None]
)
def test_a_digest_can_never_be_a_path(store: FileArtifactStore, text: str) -> None:
    with pytest.raises(InvalidInput, match="not a SHA-256 digest"):
        check_digest(text)
    with pytest.raises(InvalidInput):
        store.location(text)


def test_foreign_files_are_not_listed(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    (store.root / "ab").mkdir(exist_ok=True)
    (store.root / "ab" / ".part-x").write_bytes(b"torn")
    assert list(store.digests()) == [digest]


def test_what_is_unused_is_discarded_and_what_is_touched_stays(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    now = store.location(digest).stat().st_mtime
    assert store.discard(digest, unused_since=now - 1) is None
    os.utime(store.location(digest), (now - 10, now - 10))
    assert store.discard(digest, unused_since=now - 5, pretend=True) == 4
    assert store.touch(digest)
    assert store.discard(digest, unused_since=now - 5) is None
    assert store.read(digest) == b"bars"
    os.utime(store.location(digest), (now - 10, now - 10))
    assert store.discard(digest, unused_since=now - 5) == 4
    assert not store.touch(digest)
    assert store.discard(digest, unused_since=now - 5) is None
    assert [file for file in store.root.rglob("*") if file.is_file()] == []


def test_putting_and_discarding_at_once_never_loses_what_was_put_last(store: FileArtifactStore) -> None:
    """Whatever the two do in between: after a put that ended last, the artifact is there."""
    stop = threading.Event()

    def discard() -> None:
        while not stop.is_set():
            store.discard(sha256_of(b"bars"), unused_since=time.time() - 0.5)

    thread = threading.Thread(target=discard)
    thread.start()
    try:
        for _ in range(200):
            digest = store.put(b"bars")
            assert store.read(digest) == b"bars"
            with contextlib.suppress(FileNotFoundError):
                os.utime(store.location(digest), (1.0, 1.0))
    finally:
        stop.set()
        thread.join()


def test_what_a_killed_discard_left_aside_is_put_back(store: FileArtifactStore) -> None:
    digest = store.put(b"bars")
    place = store.location(digest)
    place.rename(place.with_name(f".part-{digest}"))
    with pytest.raises(NotFound):
        store.read(digest)
    assert store.clear_torn(0.0) == 0
    assert store.read(digest) == b"bars"
