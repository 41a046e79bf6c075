"""``ktrdr backup``: the ledger and everything it refers to, in one file; on the machine that has KTRDR_HOME."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ktrdr.cli.exits import Exit
from ktrdr.cli.options import json_option
from ktrdr.cli.output import Output
from ktrdr.settings import database_url, home

if TYPE_CHECKING:
    from ktrdr.backup.archive import Manifest

__all__ = ["backup"]

_SHOWN = 5  # missing artifacts that are named; --json names all


@click.group()
def backup() -> None:
    """Backups of the ledger and its files: create, verify, restore.

    They read and write KTRDR_HOME and the ledger (KTRDR_DATABASE_URL) directly, so run them where the backend runs.
    """


@backup.command("create")
@click.argument("target", type=click.Path(path_type=Path))
@json_option
def create(target: Path, out: Output) -> int:
    """Write a backup to TARGET: a file that does not exist yet, or a folder.

    A backend and its workers may go on meanwhile; every operation that was accepted before is in it. The file's name
    ends in .tar, or in .tar.gz or .tgz, and then it is compressed. The exit code is 1 if artifacts that the ledger promises are missing or damaged.
    """
    from datetime import UTC, datetime  # lazy, with the next two: only this command needs them
    from importlib.metadata import version

    from ktrdr.backup.create import create_backup

    path, manifest = create_backup(
        home(), database_url(), target, version=version("ktrdr"), now=datetime.now(UTC)
    )
    size = path.stat().st_size
    told = {"file": str(path), "bytes": size, **_told(manifest)}
    out.result(told, f"Wrote {path} ({size:,} bytes).", *_lines(manifest))
    return Exit.FAILED if manifest.missing else Exit.DONE


@backup.command("verify")
@click.argument("archive", type=click.Path(path_type=Path))
@json_option
def verify(archive: Path, out: Output) -> int:
    """Read a backup from end to end and compare every byte with its manifest."""
    from ktrdr.backup.restore import verify_backup  # lazy: SQLAlchemy

    manifest = verify_backup(archive)
    out.result(_told(manifest), f"{archive} is whole.", *_lines(manifest))
    return Exit.FAILED if manifest.missing else Exit.DONE


@backup.command("restore")
@click.argument("archive", type=click.Path(path_type=Path))
@json_option
def restore(archive: Path, out: Output) -> None:
    """Bring a backup into an empty KTRDR_HOME and an empty database, SQLite or PostgreSQL, whichever it came from.

    All of it or nothing. Start the backend afterwards: what ran when the backup was made is adopted from workers that
    still run it, or run again.
    """
    from ktrdr.backup.restore import restore_backup  # lazy: SQLAlchemy

    manifest = restore_backup(archive, home(), database_url())
    out.result(
        _told(manifest), f"Restored into {home()}.", *_lines(manifest), "Start it: ktrdr backend start"
    )


def _told(manifest: Manifest) -> dict[str, Any]:
    return {
        "created_at": manifest.created_at,
        "ktrdr": manifest.ktrdr,
        "database": manifest.database,
        "schema": manifest.schema,
        "rows": manifest.tables,
        "files": len(manifest.members) - len(manifest.tables),
        "artifacts": manifest.artifacts,
        "artifacts_bytes": manifest.artifacts_bytes,
        "missing": list(manifest.missing),
    }


def _lines(manifest: Manifest) -> Iterator[str]:
    made = f"of {manifest.created_at[:19].replace('T', ' ')} UTC by ktrdr {manifest.ktrdr}"
    yield f"  ledger     {manifest.database}, schema {manifest.schema}, {made}"
    yield f"  rows       {', '.join(f'{count:,} {name}' for name, count in manifest.tables.items())}"
    yield f"  artifacts  {manifest.artifacts:,} ({manifest.artifacts_bytes:,} bytes)"
    if manifest.missing:
        shown = ", ".join(manifest.missing[:_SHOWN]) + ", ..." * (len(manifest.missing) > _SHOWN)
        yield f"  MISSING    {len(manifest.missing):,} artifacts were absent or damaged: {shown}"
