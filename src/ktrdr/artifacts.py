"""Content-addressed files: an artifact's name is the SHA-256 of its bytes, so it can never change.

Bars segments, model files, results and logs are artifacts. Whoever knows the digest can fetch and verify it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from ktrdr.errors import CorruptArtifact, InvalidInput, NotFound
from ktrdr.private import private_folder

__all__ = ["ArtifactStore", "FileArtifactStore", "check_digest", "sha256_of", "sync_directory"]

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK = 1 << 20
_LOOKS, _PAUSE_S = 100, 0.001  # at a file that is looked at aside, which takes microseconds


def check_digest(text: str) -> str:
    """Return ``text`` if it is 64 lower-case hexadecimal digits.

    Raises
    ------
    InvalidInput
        Otherwise; so a digest can never be a path.
    """
    if not isinstance(text, str) or not _DIGEST.match(text):
        raise InvalidInput(f"'{str(text)[:80]}' is not a SHA-256 digest: 64 lower-case hexadecimal digits.")
    return text


def sha256_of(content: bytes) -> str:
    """The digest of ``content``."""
    return hashlib.sha256(content).hexdigest()


class ArtifactStore(Protocol):
    """Where artifacts are kept.

    Laws
    ----
    - ``put`` is idempotent and returns the SHA-256 of the content; the bytes are durable when it returns.
    - ``path`` gives a readable local file whose bytes were verified against the digest; never a torn one.
    - A missing artifact raises NotFound, damaged bytes raise CorruptArtifact; neither returns quietly.
    - Safe for several processes at once.
    """

    def put(self, content: bytes) -> str: ...
    def path(self, digest: str) -> Path: ...
    def read(self, digest: str) -> bytes: ...
    def has(self, digest: str) -> bool: ...


class FileArtifactStore:
    """Artifacts as files under ``root/ab/abcdef...``; written beside, synced, renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def location(self, digest: str) -> Path:
        """Where the artifact is or would be; says nothing about its existence."""
        check_digest(digest)
        return self.root / digest[:2] / digest

    def has(self, digest: str) -> bool:
        return self.location(digest).is_file()

    def intact(self, digest: str) -> bool:
        """Whether the artifact is here with the right bytes: ``has``, verified."""
        try:
            self.path(digest)
        except (NotFound, CorruptArtifact):
            return False
        return True

    def put(self, content: bytes) -> str:
        digest = sha256_of(content)
        self.put_stream([content], digest)
        return digest

    def put_stream(self, chunks: Iterable[bytes], digest: str) -> None:
        """Store a stream that claims to have ``digest``; what is stored already and whole is left alone.

        Raises
        ------
        CorruptArtifact
            If it has another; nothing is kept.
        """
        target = self.location(digest)
        if self.intact(digest) and self.touch(digest):
            return
        first = not target.parent.is_dir()
        private_folder(target.parent)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        try:
            sha = hashlib.sha256()
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    sha.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if sha.hexdigest() != digest:
                raise CorruptArtifact(
                    f"Received bytes of digest {sha.hexdigest()}, expected {digest}; not stored."
                )
            os.replace(temporary, target)
            sync_directory(target.parent)
            if first:  # else a power cut could take the folder, with what is in it
                sync_directory(target.parent.parent)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        with self._open(digest) as file:
            self._verify(digest, iter(lambda: file.read(_CHUNK), b""))
        return self.location(digest)

    def read(self, digest: str) -> bytes:
        with self._open(digest) as file:
            content = file.read()
        self._verify(digest, [content])
        return content

    def _open(self, digest: str) -> BinaryIO:
        """The file, also while :meth:`discard` looks at it aside.

        Raises
        ------
        NotFound
            If it is not here.
        """
        target = self.location(digest)
        for _ in range(_LOOKS):
            with contextlib.suppress(FileNotFoundError):
                return target.open("rb")
            if not _aside(target).exists():
                break
            time.sleep(_PAUSE_S)
        try:
            return target.open("rb")  # it may have been put back between the two looks
        except FileNotFoundError:
            raise NotFound("artifact", digest) from None

    def _verify(self, digest: str, chunks: Iterable[bytes]) -> None:
        sha = hashlib.sha256()
        for chunk in chunks:
            sha.update(chunk)
        if sha.hexdigest() != digest:
            raise CorruptArtifact(
                f"Artifact {digest} is damaged on disk ({self.location(digest)}): its bytes have digest "
                f"{sha.hexdigest()}. Delete the file; it will be fetched or made again."
            )

    def delete(self, digest: str) -> None:
        """Remove an artifact; a missing one is no error."""
        self.location(digest).unlink(missing_ok=True)

    def touch(self, digest: str) -> bool:
        """Note that the artifact was asked for, so that it is not taken for unused; False if it is not here."""
        try:
            os.utime(self.location(digest))
        except FileNotFoundError:
            return False
        return True

    def discard(self, digest: str, *, unused_since: float, pretend: bool = False) -> int | None:
        """Remove an artifact that was neither stored nor touched after ``unused_since`` (seconds since 1970).

        Returns its size, or None if it stays. Whoever touches it meanwhile is told that it is gone, or keeps it.
        """
        target = self.location(digest)
        aside = _aside(target)
        try:
            status = target.stat()
            if status.st_mtime > unused_since or pretend:
                return None if status.st_mtime > unused_since else status.st_size
            os.rename(target, aside)
            if aside.stat().st_mtime > unused_since:  # it was touched just before
                os.rename(aside, target)
                return None
            aside.unlink()
        except FileNotFoundError:
            return None
        return status.st_size

    def clear_torn(self, older_than_s: float = 3600.0) -> int:
        """Remove what writers that were killed left half-written; returns how many files that were.

        A whole artifact that a killed :meth:`discard` left aside is put back: it may have been touched meanwhile.
        """
        gone = 0
        for file in self.root.glob("??/.part-*"):
            with contextlib.suppress(FileNotFoundError):
                digest = file.name.removeprefix(".part-")
                if _DIGEST.match(digest):
                    os.replace(file, self.location(digest))
                elif time.time() - file.stat().st_mtime >= older_than_s:
                    file.unlink()
                    gone += 1
        return gone

    def digests(self) -> Iterator[str]:
        """Every stored digest, in no order."""
        for folder in self.folders():
            yield from self.digests_of(folder)

    def folders(self) -> list[str]:
        """Into which the artifacts are divided, by the beginning of their digests."""
        return sorted(folder.name for folder in self.root.glob("??") if folder.is_dir())

    def digests_of(self, folder: str) -> Iterator[str]:
        """The digests in one of the :meth:`folders`, in no order."""
        for file in (self.root / folder).glob("*"):
            if _DIGEST.match(file.name):
                yield file.name


def _aside(target: Path) -> Path:
    """Where a file is looked at before it is removed: named as half-written ones, which are cleared at a start."""
    return target.with_name(f".part-{target.name}")


def sync_directory(folder: Path) -> None:
    """Bring the names in a folder to the disk: a new file that was synced has none there before."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
