"""Opening a ledger file: which SQLite, which journal, whose file, which schema; each refusal says what to do."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import sqlite3.dbapi2
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from ktrdr.errors import InvalidSetting, KtrdrError, Unavailable
from ktrdr.operations.sql.schema import migrate
from ktrdr.private import private_file, private_folder

__all__ = ["LedgerFile", "Lock", "driver", "journal_for", "reading_uri"]

_WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
_BUSY_S = 10.0


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


def reading_uri(path: Path) -> tuple[str, bool]:
    """The URI by which a program beside the backend reads a ledger, and whether nobody seems to have it open.

    A write-ahead ledger at rest is read as it lies, or SQLite would leave files beside it, of the reader's user.
    """
    with path.open("rb") as file:
        write_ahead = file.read(20)[18:20] == b"\x02\x02"
    at_rest = write_ahead and not Path(f"{path}-wal").exists()
    return f"{path.absolute().as_uri()}?{'immutable=1' if at_rest else 'mode=ro'}", at_rest


class Lock:
    """Makes one process the owner of a ledger; the kernel frees it when the process dies, however it dies."""

    def __init__(self, ledger: Path) -> None:
        path = ledger.with_name(ledger.name + ".lock")
        self._file = open(path, "a+", opener=private_file)  # noqa: SIM115  (held until release)
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
        self.name = str(path)
        self.module = module or driver()
        self.journal = journal_for(self.module.sqlite_version_info)
        try:
            private_folder(path.parent)
            self._lock = Lock(path)
        except OSError as error:
            raise InvalidSetting(
                f"The ledger {path} cannot be opened: {error.strerror}. Point KTRDR_HOME or KTRDR_DATABASE_URL at a "
                "place this user can write to."
            ) from None
        with contextlib.suppress(OSError):  # it is there already, or SQLite says below what is wrong
            os.close(private_file(str(path), os.O_CREAT | os.O_EXCL))
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
            migrate(connection, str(self.path))
