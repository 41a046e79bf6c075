"""The backup's file: a tar that is written in one pass and says at its end what must be in it.

Members, in this order: ``ktrdr-backup.json`` (what this is), ``ledger/TABLE.jsonl``, ``home/PATH``,
``artifacts/DIGEST``, ``manifest.json``. The manifest names the digest of every other member, so a file without one
was torn, and nothing of a torn or altered file is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Protocol

from ktrdr.artifacts import sha256_of
from ktrdr.backup.unfinished import hold, part_of, scratch_of, sweep
from ktrdr.errors import CorruptArtifact, InvalidInput, KtrdrError
from ktrdr.private import private_file

__all__ = ["ARTIFACTS", "FORMAT", "HOME", "LEDGER", "Archive", "Manifest", "Member", "read_archive"]

FORMAT = 1
HEAD, TAIL = "ktrdr-backup.json", "manifest.json"
LEDGER, HOME, ARTIFACTS = "ledger/", "home/", "artifacts/"
_CHUNK = 1 << 20
_LARGEST_MANIFEST = 256 << 20


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup holds. ``artifacts_digest`` is the SHA-256 over the artifacts' digests in their order; ``missing``
    are artifacts that the ledger promises and the store did not have, or not whole."""

    ktrdr: str
    created_at: str
    database: str
    schema: str
    tables: dict[str, int]
    members: dict[str, str] = field(default_factory=dict)
    artifacts: int = 0
    artifacts_bytes: int = 0
    artifacts_digest: str = ""
    missing: tuple[str, ...] = ()
    format: int = FORMAT


class _Counted:
    """A stream that knows its SHA-256 and how many bytes were read."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.sha, self.size = hashlib.sha256(), 0

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._source.read(size)
        self.sha.update(chunk)
        self.size += len(chunk)
        return chunk


class Archive:
    """Writes one archive; a context manager. The file appears under its name when ``finish`` returns, whole or never.

    ``scratch`` is a folder beside it for what is needed on the way.

    Raises
    ------
    InvalidInput
        If the file exists, or its folder does not.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        if target.exists():
            raise InvalidInput(f"'{target}' exists; a backup never replaces a file. Choose another name.")
        if not target.parent.is_dir():
            raise InvalidInput(f"'{target.parent}' is not a folder. Make it, or choose another place.")
        self._part = part_of(target)
        self._members: dict[str, str] = {}
        self._chain, self._count, self._bytes = hashlib.sha256(), 0, 0

    def __enter__(self) -> Archive:
        sweep(self.target.parent)
        self._file = open(self._part, "xb", opener=private_file)
        hold(self._file)  # so that the next backup's sweep passes over it
        self.scratch = scratch_of(self._part)
        self.scratch.mkdir(mode=0o700)
        mode: Any = "w|gz" if self.target.suffix in (".gz", ".tgz") else "w|"
        self._tar = tarfile.open(fileobj=self._file, mode=mode, format=tarfile.PAX_FORMAT)
        self._write(HEAD, io.BytesIO(json.dumps({"format": FORMAT}).encode()), None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, tarfile.TarError):
            self._tar.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._part.unlink(missing_ok=True)
        self._file.close()

    def add(self, name: str, content: bytes, *, mode: int = 0o600) -> None:
        """A member from memory."""
        self._members[name] = self._write(name, io.BytesIO(content), len(content), mode)

    def add_file(self, name: str, file: IO[bytes]) -> None:
        """A member from a file that does not change meanwhile."""
        self._members[name] = self._write(name, file, os.fstat(file.fileno()).st_size)

    def add_artifact(self, digest: str, path: Path) -> None:
        """An artifact; its name is its digest."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._write(ARTIFACTS + digest, file, size)
        self._chain.update(digest.encode())
        self._count, self._bytes = self._count + 1, self._bytes + size

    def finish(self, **told: Any) -> Manifest:
        """Write the manifest and give the file its name; what it holds is durable then."""
        manifest = Manifest(
            members=self._members,
            artifacts=self._count,
            artifacts_bytes=self._bytes,
            artifacts_digest=self._chain.hexdigest(),
            **told,
        )
        text = json.dumps(asdict(manifest))
        sealed = {"sha256": sha256_of(text.encode()), "manifest": text}
        self._write(TAIL, io.BytesIO(json.dumps(sealed).encode()), None)
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._part, self.target)
        folder = os.open(self.target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return manifest

    def _write(self, name: str, source: IO[bytes], size: int | None, mode: int = 0o600) -> str:
        entry = tarfile.TarInfo(name)
        entry.size = len(source.getbuffer()) if isinstance(source, io.BytesIO) else size or 0
        entry.mode = mode
        counted = _Counted(source)
        self._tar.addfile(entry, counted)
        return counted.sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: read from ``stream`` before the next is asked for."""

    name: str
    mode: int
    stream: Readable


def read_archive(path: Path, take: Callable[[Member], None]) -> Manifest:
    """Hand every member but the first and the last to ``take``, in their order, and check all of them.

    What ``take`` was given counts only once this returns: the archive may turn out to be torn behind it.

    Raises
    ------
    InvalidInput
        If there is no such file, it is no backup, or a later ktrdr made it.
    CorruptArtifact
        If it is torn or altered.
    """
    try:
        with path.open("rb") as file:
            try:
                with tarfile.open(fileobj=file, mode="r|*") as tar:
                    return _Reader(path, tar, take).run()
            except (tarfile.TarError, EOFError, zlib.error) as error:
                raise _torn(path, str(error)) from None
    except IsADirectoryError:
        raise InvalidInput(f"'{path}' is a folder; name the file of a backup.") from None
    except FileNotFoundError:
        raise InvalidInput(f"There is no file '{path}'.") from None


class _Reader:
    """One pass over an archive."""

    def __init__(self, path: Path, tar: tarfile.TarFile, take: Callable[[Member], None]) -> None:
        self._path, self._tar, self._take = path, tar, take
        self._members: dict[str, str] = {}
        self._chain, self._count, self._bytes = hashlib.sha256(), 0, 0

    def run(self) -> Manifest:
        first = self._tar.next()
        head = None if first is None or first.name != HEAD else _object(self._content(first))
        if head is None or not isinstance(head.get("format"), int):
            raise InvalidInput(f"'{self._path}' is not a backup that ktrdr made.")
        if head["format"] != FORMAT:
            raise InvalidInput(
                f"'{self._path}' has the format {head['format']}; this ktrdr reads {FORMAT}. "
                "Upgrade: pip install --upgrade ktrdr"
            )
        while (entry := self._tar.next()) is not None:
            if entry.name == TAIL:
                return self._compared(_object(self._content(entry)))
            self._pass_on(entry)
        raise _torn(self._path, "it ends before its manifest")

    def _content(self, entry: tarfile.TarInfo) -> bytes:
        file = self._tar.extractfile(entry) if entry.size <= _LARGEST_MANIFEST else None
        return b"" if file is None else file.read()

    def _pass_on(self, entry: tarfile.TarInfo) -> None:
        if not entry.isreg() or not _inside(entry.name) or entry.name in self._members:
            raise _altered(self._path, f"it holds '{entry.name[:200]}'")
        file = self._tar.extractfile(entry)
        assert file is not None
        counted = _Counted(file)
        self._take(Member(entry.name, entry.mode & 0o777, counted))
        while counted.read(_CHUNK):
            pass
        if counted.size != entry.size:
            raise _torn(self._path, f"'{entry.name}' is cut off")
        digest = counted.sha.hexdigest()
        if not entry.name.startswith(ARTIFACTS):
            self._members[entry.name] = digest
            return
        if digest != entry.name.removeprefix(ARTIFACTS):
            raise _altered(self._path, f"'{entry.name}' has other bytes")
        self._chain.update(digest.encode())
        self._count, self._bytes = self._count + 1, self._bytes + counted.size

    def _compared(self, told: dict[str, Any] | None) -> Manifest:
        text = str((told or {}).get("manifest"))
        fields = _object(text.encode())
        if fields is None or (told or {}).get("sha256") != sha256_of(text.encode()):
            raise _altered(self._path, "its manifest is not as it was written")
        manifest = Manifest(**fields | {"missing": tuple(fields["missing"])})
        found = (self._members, self._count, self._bytes, self._chain.hexdigest())
        expected = (
            manifest.members,
            manifest.artifacts,
            manifest.artifacts_bytes,
            manifest.artifacts_digest,
        )
        if found != expected:
            raise _altered(self._path, "its members are not those of its manifest")
        return manifest


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _inside(name: str) -> bool:
    """Whether a member's name is one of ours: below one of three folders, and nowhere else."""
    parts = PurePosixPath(name).parts
    plain = name.startswith((LEDGER, HOME, ARTIFACTS)) and "\\" not in name and "\0" not in name
    return plain and ".." not in parts and len(parts) > 1 and name == "/".join(parts)


def _torn(path: Path, how: str) -> KtrdrError:
    return CorruptArtifact(f"The backup '{path}' is torn: {how}. Nothing of it was used; take another one.")


def _altered(path: Path, how: str) -> KtrdrError:
    return CorruptArtifact(
        f"The backup '{path}' was altered: {how}. Nothing of it was used; take another one."
    )
