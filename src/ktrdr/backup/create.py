"""Making a backup while everything runs: the ledger of one moment, then every artifact that it refers to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, select

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backup.archive import HOME, LEDGER, Archive, Manifest
from ktrdr.backup.ledger import Row, dump_table, read_snapshot, schema_of, tables_of
from ktrdr.errors import CorruptArtifact, InvalidInput, NotFound
from ktrdr.operations.references import References, digests_in, follow, mentioned_by_row
from ktrdr.operations.sql.place import ledger_place

__all__ = ["create_backup"]

# Of no use elsewhere: workers fetch again what they cached, and uploads that were under way are repeated.
_LEFT_OUT = ("artifacts", "uploads", "workers", "logs", "artifact-gc.json")
_LEDGER = "ktrdr.db"
_ENDINGS = (
    ".tar",
    ".tar.gz",
    ".tgz",
)  # so that the name of a folder that is absent is not taken for a file's
_A_ROW_NAMES = 8  # digests, about
_LARGEST_DOCUMENT = 1 << 20


def create_backup(
    home: Path, database: str | None, target: Path, *, version: str, now: datetime
) -> tuple[Path, Manifest]:
    """Write a backup of ``home`` and its ledger; nothing that uses them notices.

    Every operation that was acknowledged before this began is in it. What is deleted meanwhile may be in it.

    Parameters
    ----------
    database
        As ``KTRDR_DATABASE_URL``; None for the file in ``home``.
    target
        A file that does not exist, its name ending in ``.tar``, ``.tar.gz`` or ``.tgz``, which are compressed; or a
        folder, in which the file is named by the time.

    Returns
    -------
    The file, and what is in it.

    Raises
    ------
    InvalidInput
        If the target exists, lies in ``home``, or its folder is absent, or it is not named as a backup is.
    NotFound
        If there is no ledger.
    Unavailable
        If the ledger cannot be read now.
    """
    place = ledger_place(database or home / _LEDGER)
    if target.is_dir():
        target = target / f"ktrdr-backup-{now:%Y%m%dT%H%M%SZ}.tar"
    elif not target.name.endswith(_ENDINGS) and not target.exists():
        raise InvalidInput(
            f"'{target}' is no folder, and a backup's file ends in {', '.join(_ENDINGS)}. Make the folder, or give the "
            "file such a name."
        )
    if target.resolve().is_relative_to(home.resolve()):
        raise InvalidInput(
            f"'{target}' lies in KTRDR_HOME, which is what is backed up. Choose another folder."
        )
    with Archive(target) as archive:
        job = _Backup(archive, FileArtifactStore(home / "artifacts"), archive.scratch)
        with read_snapshot(place, archive.scratch) as connection:
            tables = tables_of(connection)
            rows = sum(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)
            job.references = References(_A_ROW_NAMES * (rows + 1_000))
            told: dict[str, Any] = {
                "database": connection.dialect.name,
                "schema": schema_of(connection),
                "tables": {table.name: job.ledger(connection, table) for table in tables},
            }
        job.home(home, place if isinstance(place, Path) else None)
        job.artifacts()
        manifest = archive.finish(
            ktrdr=version, created_at=now.isoformat(), missing=tuple(sorted(job.missing)), **told
        )
        return target, manifest


class _Backup:
    """What one backup has gathered so far."""

    def __init__(self, archive: Archive, artifacts: FileArtifactStore, scratch: Path) -> None:
        self._archive, self._artifacts, self._scratch = archive, artifacts, scratch
        self.references = References(0)
        self.missing: set[str] = set()

    def ledger(self, connection: Any, table: Table) -> int:
        """One table; what its rows mention is noted."""
        seen: set[str] = set()

        def see(row: Row) -> None:
            found = mentioned_by_row(table.name, row)
            self.missing |= {digest for digest in found.promised if not self._artifacts.has(digest)}
            for digest in found.files | follow(found.documents - seen, self._artifacts):
                self.references.add(digest)
            seen.update(found.documents)

        path = self._scratch / "rows"
        with path.open("wb") as file:
            count = dump_table(connection, table, file, see)
        with path.open("rb") as written:
            self._archive.add_file(f"{LEDGER}{table.name}.jsonl", written)
        path.unlink()
        return count

    def home(self, home: Path, ledger: Path | None) -> None:
        """Every other file: names of datasets, strategies, job logs, and whatever later versions keep there."""
        for path in _files(home, ledger):
            try:
                content, mode = path.read_bytes(), path.stat().st_mode
            except FileNotFoundError:
                continue
            if len(content) <= _LARGEST_DOCUMENT:
                for digest in follow(digests_in(content), self._artifacts):
                    self.references.add(digest)
            self._archive.add(f"{HOME}{path.relative_to(home).as_posix()}", content, mode=mode & 0o777)

    def artifacts(self) -> None:
        """Every stored artifact that is referred to; one that is damaged is named instead."""
        for digest in sorted(self._artifacts.digests()):
            if digest not in self.references:
                continue
            try:
                self._archive.add_artifact(digest, self._artifacts.path(digest))
            except CorruptArtifact:
                self.missing.add(digest)
            except (NotFound, FileNotFoundError):  # deleted since the ledger was read
                continue


def _files(home: Path, ledger: Path | None) -> Iterator[Path]:
    """Regular files below ``home`` in the order of their names; hidden ones are locks and half-written files."""
    for folder, folders, names in os.walk(home):
        top = Path(folder) == home
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not (top and f in _LEFT_OUT))
        for name in sorted(names):
            path = Path(folder, name)
            of_ledger = (top and name.startswith(_LEDGER)) or (
                ledger is not None and name.startswith(ledger.name)
            )
            hidden = name.startswith(".") or name.endswith(".lock") or (top and name in _LEFT_OUT)
            if not of_ledger and not hidden and path.is_file() and not path.is_symlink():
                yield path
