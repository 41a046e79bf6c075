"""Opening a ledger file: which SQLite, which journal, whose file, which schema; each refusal says what to do."""

from __future__ import annotations

import fcntl
import importlib
import os
import sqlite3.dbapi2
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from ktrdr.errors import InvalidSetting, KtrdrError, Unavailable
from ktrdr.operations.tables import SCHEMA

__all__ = ["LedgerFile", "Lock", "driver", "journal_for", "ledger_path"]

_WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
_BUSY_S = 10.0
_MIGRATIONS = Path(__file__).parent / "migrations"


def journal_for(version: tuple[int, ...]) -> Literal["wal", "delete"]:
    """The journal mode that is safe with this SQLite.

    SQLite 3.7.0 to 3.51.2 can lose committed rows when a checkpoint resets the write-ahead log while another
    connection writes; there the slower rollback journal is used.
    """
    first, last = _WAL_RESET_BUG
    return "delete" if first <= tuple(version[:3]) <= last else "wal"


def driver(preferred: str = "pysqlite3.dbapi2") -> ModuleType:
    """The DB-API module: ``pysqlite3`` (brings a new SQLite on Linux) where it is installed, else Python's own."""
    try:
        return importlib.import_module(preferred)
    except ImportError:
        return sqlite3.dbapi2


def ledger_path(where: str | Path) -> Path:
    """The file meant by a path or an ``sqlite:///`` URL.

    Raises
    ------
    InvalidSetting
        If it is a URL of another database, or of none at all.
    """
    if isinstance(where, Path) or "://" not in where:
        return Path(where).expanduser().absolute()
    try:
        url = make_url(where)
    except ArgumentError:
        raise InvalidSetting(
            f"KTRDR_DATABASE_URL='{where}' is not a URL. Example: sqlite:////var/lib/ktrdr/ledger.db"
        ) from None
    if url.get_backend_name() != "sqlite":
        shown = url.render_as_string(hide_password=True)
        raise InvalidSetting(
            f"KTRDR_DATABASE_URL='{shown}': this version keeps its ledger in SQLite. "
            "Example: sqlite:////var/lib/ktrdr/ledger.db"
        )
    if not url.database or url.database == ":memory:":
        raise InvalidSetting(
            f"KTRDR_DATABASE_URL='{where}' names no file; a ledger must survive its process. "
            "Example: sqlite:////var/lib/ktrdr/ledger.db"
        )
    return Path(url.database).expanduser().absolute()


class Lock:
    """Makes one process the owner of a ledger; the kernel frees it when the process dies, however it dies."""

    def __init__(self, ledger: Path) -> None:
        path = ledger.with_name(ledger.name + ".lock")
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise Unavailable(
                f"The ledger {ledger} is in use by another backend (process {owner}). Stop that one, or give this "
                "one its own KTRDR_HOME."
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let others have it. Idempotent."""
        self._file.close()


class LedgerFile:
    """An open ledger file: a ``writer`` engine of one connection and a ``reader`` engine of ``readers``.

    Raises
    ------
    Unavailable
        If another process holds the ledger.
    InvalidSetting
        If the file cannot be used: not writable, not SQLite, damaged, or written by a newer ktrdr.
    """

    def __init__(self, path: Path, *, readers: int = 2, module: ModuleType | None = None) -> None:
        self.path = path
        self.module = module or driver()
        self.journal = journal_for(self.module.sqlite_version_info)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(path)
        except OSError as error:
            raise InvalidSetting(
                f"The ledger {path} cannot be opened: {error.strerror}. Point KTRDR_HOME or KTRDR_DATABASE_URL at a "
                "place this user can write to."
            ) from None
        self.writer = self._engine("BEGIN IMMEDIATE", 1)
        self.reader = self._engine("BEGIN", readers)
        try:
            self._prepare()
        except BaseException as error:
            self.close()
            translated = self.translate(error)
            if translated is error:
                raise
            raise translated from None

    def close(self) -> None:
        """Close every connection and give up the lock. Idempotent."""
        self.writer.dispose()
        self.reader.dispose()
        self._lock.release()

    def translate(self, error: BaseException) -> BaseException:
        """A driver's error in ktrdr's words; any other error as it is."""
        if isinstance(error, DBAPIError):
            told = str(error.orig)
        elif isinstance(error, self.module.Error):  # raised while connecting
            told = str(error)
        else:
            return error
        if "locked" in told or "busy" in told:
            return Unavailable(
                f"The ledger {self.path} is locked by another program ({told}). Close that program (a database "
                "browser, a backup) and try again.",
                retry_after_s=_BUSY_S,
            )
        if "full" in told or "I/O" in told:
            return Unavailable(
                f"The ledger {self.path} cannot be written: {told}. Nothing of this request was recorded. Free some "
                "space or check the disk, then try again."
            )
        if "readonly" in told or "unable to open" in told:
            return InvalidSetting(
                f"The ledger {self.path} cannot be opened for writing: {told}. Check the file's and its folder's "
                "permissions, or point KTRDR_HOME or KTRDR_DATABASE_URL elsewhere."
            )
        if "not a database" in told or "malformed" in told:
            return InvalidSetting(
                f"The ledger {self.path} is not a SQLite database or is damaged: {told}. Move it away (a new one is "
                "made at the next start) or restore it from a backup."
            )
        return KtrdrError(f"The ledger {self.path} failed: {told}.")

    def _engine(self, begin: str, connections: int) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            module=self.module,
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            connect_args={"timeout": _BUSY_S, "isolation_level": None, "check_same_thread": False},
        )
        pragmas = ["synchronous=FULL", "foreign_keys=ON"]
        if begin == "BEGIN":
            pragmas.append("query_only=ON")

        def prepare(connection: Any, record: object) -> None:
            del record
            try:
                for pragma in pragmas:
                    connection.execute(f"PRAGMA {pragma}")
            except BaseException:
                connection.close()  # SQLAlchemy never learns of a connection that fails here
                raise

        def begin_transaction(connection: Connection) -> None:
            connection.exec_driver_sql(begin)  # the driver's own BEGIN comes too late for savepoints

        event.listen(engine, "connect", prepare)
        event.listen(engine, "begin", begin_transaction)
        return engine

    def _prepare(self) -> None:
        raw = self.writer.raw_connection()
        try:
            raw.cursor().execute(f"PRAGMA journal_mode={self.journal}")
        finally:
            raw.close()
        with self.writer.begin() as connection:
            migrate(connection, self.path)


def migrate(connection: Connection, path: Path) -> None:
    """Bring the tables to ``SCHEMA`` inside the connection's transaction: all of it or nothing.

    Raises
    ------
    InvalidSetting
        If a newer ktrdr made them, or something else did.
    """
    names = set(inspect(connection).get_table_names())
    if "alembic_version" in names:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if version == SCHEMA:
            return
    elif names:
        raise InvalidSetting(
            f"{path} is a database of another program (tables: {', '.join(sorted(names)[:5])}). Point "
            "KTRDR_DATABASE_URL at a file of its own."
        )
    else:
        version = None
    _upgrade(connection, path, version)


def _upgrade(connection: Connection, path: Path, version: str | None) -> None:
    from alembic import command  # lazy: takes a fifth of a second, and only the first start needs it
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise InvalidSetting(
            f"The ledger {path} was written by a newer ktrdr (schema {version}; this one knows up to {SCHEMA}). "
            "Upgrade ktrdr: pip install --upgrade ktrdr; or use another KTRDR_HOME. Nothing was changed."
        )
    config.attributes["connection"] = connection
    command.upgrade(config, SCHEMA)
