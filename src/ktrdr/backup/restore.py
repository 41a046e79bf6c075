"""Restoring a backup: into an empty home and an empty database, all of it or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backup.archive import ARTIFACTS, HOME, LEDGER, Manifest, Member, read_archive
from ktrdr.backup.ledger import fill_table, schema_of, tables_of
from ktrdr.backup.unfinished import WORK, alone
from ktrdr.errors import Conflict, CorruptArtifact, InvalidInput, Unavailable
from ktrdr.operations.sql import postgres, sqlite
from ktrdr.operations.sql.place import ledger_place, shown
from ktrdr.operations.sql.schema import known_schemas, migrate
from ktrdr.operations.sql.tables import SCHEMA
from ktrdr.private import private_file, private_folder

__all__ = ["restore_backup", "verify_backup"]

_CHUNK = 1 << 20


def verify_backup(archive: Path) -> Manifest:
    """Read the whole archive and compare every byte with what its manifest says.

    Raises
    ------
    InvalidInput
        If it is no backup, or one of a later ktrdr.
    CorruptArtifact
        If it is torn or altered.
    """
    manifest = read_archive(archive, lambda _member: None)
    if manifest.schema not in known_schemas():
        raise InvalidInput(
            f"'{archive}' holds a ledger of a newer ktrdr (schema {manifest.schema}; this one knows up to {SCHEMA}). "
            "Upgrade ktrdr: pip install --upgrade ktrdr"
        )
    return manifest


def restore_backup(archive: Path, home: Path, database: str | None) -> Manifest:
    """Bring a backup into an empty ``home`` and an empty database, of either kind; returns what came.

    The archive is read twice: the first time only to see that it is whole.

    Raises
    ------
    Conflict
        If the home or the database is not empty.
    InvalidInput, CorruptArtifact
        As :func:`verify_backup`; nothing was written then.
    Unavailable
        If the database does not answer.
    """
    place = ledger_place(database or home / "ktrdr.db")
    _refuse_unless_empty(home, place)
    verify_backup(archive)
    made = not home.exists()
    private_folder(home)
    try:
        with alone(home):
            _refuse_unless_empty(home, place)  # another one may have been quicker
            for path in _leftovers(home, place):
                _remove(path)
            return _restore(archive, home, place)
    except BaseException:
        if made:
            with suppress(OSError):  # another restore goes on there
                home.rmdir()
        raise


def _restore(archive: Path, home: Path, place: Path | URL) -> Manifest:
    work, moved = home / WORK, list[Path]()
    work.mkdir(mode=0o700)
    try:
        manifest = read_archive(archive, _Unpacking(work).take)
        with _new_ledger(place) as connection:
            _fill(connection, work / "ledger", manifest)
            os.sync()
            for entry in sorted((work / "home").iterdir()):
                os.rename(entry, home / entry.name)
                moved.append(home / entry.name)
        shutil.rmtree(work)
        os.sync()
        return manifest
    except BaseException:
        for path in (*moved, work):  # as long as that is there, no backend starts
            _remove(path)
        raise


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _leftovers(home: Path, place: Path | URL) -> tuple[Path, ...]:
    """What a restore into ``home`` leaves that is killed before it moves anything to its place."""
    if isinstance(place, URL):
        return (home / WORK,)
    part = _part_of_ledger(place)
    return (home / WORK, part, part.with_name(f"{part.name}-journal"))


def _part_of_ledger(place: Path) -> Path:
    return place.with_name(f".{place.name}{WORK}")


def _refuse_unless_empty(home: Path, place: Path | URL) -> None:
    if home.exists() and not home.is_dir():
        raise InvalidInput(f"KTRDR_HOME '{home}' is not a folder.")
    if home.is_dir():
        of_no_account = {home / "lost+found", home / f"{WORK}.lock", *_leftovers(home, place)}
        found = sorted(entry.name for entry in home.iterdir() if entry not in of_no_account)
        if found:
            killed = " A restore that did not come to its end left it so." if (home / WORK).exists() else ""
            raise Conflict(
                f"'{home}' is not empty ({', '.join(found[:5])}{', ...' * (len(found) > 5)}).{killed} A backup is restored "
                "into an empty KTRDR_HOME only: name another, or move this one away. Nothing was changed."
            )
    if isinstance(place, Path):
        if place.exists():
            raise Conflict(
                f"The ledger '{place}' exists. Move it away, or name another. Nothing was changed."
            )
        return
    engine = _engine(place)
    try:
        with engine.connect() as connection:
            tables = inspect(connection).get_table_names()
    except DBAPIError:
        raise Unavailable(
            f"{shown(place)} does not answer, or does not let us in. Correct KTRDR_DATABASE_URL."
        ) from None
    finally:
        engine.dispose()
    if tables:
        raise Conflict(
            f"{shown(place)} is not empty (tables: {', '.join(sorted(tables)[:5])}). A backup is restored into an "
            "empty database only. Nothing was changed."
        )


class _Unpacking:
    """Where the members of an archive go; all below one folder, nothing of it is in use yet."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._artifacts = FileArtifactStore(work / "home" / "artifacts")
        for folder in ("home", "ledger"):
            (work / folder).mkdir()

    def take(self, member: Member) -> None:
        """Write one member; its name was checked by the reader."""
        if member.name.startswith(ARTIFACTS):
            path, mode = self._artifacts.location(member.name.removeprefix(ARTIFACTS)), 0o600
        elif member.name.startswith(LEDGER):
            path, mode = self._work / "ledger" / member.name.removeprefix(LEDGER), 0o600
        else:
            path, mode = self._work / "home" / member.name.removeprefix(HOME), member.mode
        private_folder(path.parent)
        with path.open("xb") as file:
            while chunk := member.stream.read(_CHUNK):
                file.write(chunk)
        path.chmod(mode)


def _engine(url: URL) -> Engine:
    return create_engine(
        url,
        module=postgres.driver(),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"connect_timeout": 10},
    )


@contextmanager
def _new_ledger(place: Path | URL) -> Iterator[Connection]:
    """A transaction in an empty database; a file gets its name when the block ends well, a server commits then."""
    if isinstance(place, URL):
        with _transaction(_engine(place), shown(place)) as connection:
            yield connection
        return
    part = _part_of_ledger(place)
    try:
        with _transaction(_engine_of_file(part), str(place)) as connection:
            yield connection
        os.rename(part, place)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _transaction(engine: Engine, name: str) -> Iterator[Connection]:
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        line = str(error.orig).strip().splitlines()[0]
        raise Unavailable(f"{name} did not take the ledger: {line}. Nothing was changed.") from None
    finally:
        engine.dispose()


def _engine_of_file(path: Path) -> Engine:
    private_folder(path.parent)
    path.unlink(missing_ok=True)
    os.close(private_file(str(path), os.O_CREAT | os.O_EXCL))
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        module=sqlite.driver(),
        poolclass=NullPool,
        connect_args={"isolation_level": None},
    )
    # the driver's own BEGIN comes only before the first row, too late for tables
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _fill(connection: Connection, folder: Path, manifest: Manifest) -> None:
    """Tables of the backup's own schema, then its rows, then what changed in the schema since."""
    name = "The restored ledger"
    migrate(connection, name, to=manifest.schema)
    tables = {table.name: table for table in tables_of(connection)}
    if set(tables) != set(manifest.tables):
        raise CorruptArtifact(
            f"The backup's tables ({', '.join(sorted(manifest.tables))}) are not those of its schema "
            f"{manifest.schema} ({', '.join(sorted(tables))}). Nothing was changed."
        )
    for table_name, table in tables.items():
        with (folder / f"{table_name}.jsonl").open("rb") as lines:
            fill_table(connection, table, lines)
    migrate(connection, name)
    assert schema_of(connection) == SCHEMA
