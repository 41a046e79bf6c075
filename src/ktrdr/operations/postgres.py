"""Opening a ledger in PostgreSQL: whose database, which schema, and what is said while the server is away."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import time
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Engine, QueuePool, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from ktrdr.errors import InvalidSetting, KtrdrError, MissingExtra, Unavailable
from ktrdr.operations.place import shown
from ktrdr.operations.schema import migrate

__all__ = ["LedgerServer", "driver"]

_log = logging.getLogger("ktrdr.operations")
_LOCK = (0x6B747264, 1)  # "ktrd", the ledger; locks of this kind are per database
_LOCK_WAIT_S = 5.0  # a server needs a moment to see that the backend before was killed
_RETRY_S = 5.0
# The server notices within half a minute that our machine is gone, and frees the ledger for another backend.
_SESSION = """
SET lock_timeout = '10s';
SET tcp_keepalives_idle = 15;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
_HOLDER = """
SELECT coalesce(nullif(a.application_name, ''), 'a program without a name'), coalesce(host(a.client_addr), 'the same machine')
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = %s AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def driver(name: str = "psycopg") -> ModuleType:
    """The DB-API module.

    Raises
    ------
    MissingExtra
        If it, or the client library that it needs, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra("A ledger in PostgreSQL", "postgres") from None


class LedgerServer:
    """An open ledger in a PostgreSQL database: a ``writer`` engine of one session and a ``reader`` engine.

    Laws
    ----
    - The session that writes holds an advisory lock, so nobody else writes: one backend owns a ledger at a time, and
      one that lost its session to another can change nothing any more.
    - Sessions that the server ended are replaced at the next use; until then calls raise Unavailable.
    - No message shows a user's name or password.

    Parameters
    ----------
    url
        As :func:`ktrdr.operations.place.ledger_place` gives it.
    lock_wait_s
        How long opening waits for the lock of a backend that was stopped just now.

    Raises
    ------
    MissingExtra
        If the driver is not installed.
    Unavailable
        If the server does not answer, or another backend holds the ledger.
    InvalidSetting
        If the database cannot be used: no such user, password or database, no right to make tables, tables of
        another program or of a newer ktrdr, an encoding other than UTF-8, a read-only standby.
    """

    def __init__(
        self,
        url: URL,
        *,
        readers: int = 2,
        module: ModuleType | None = None,
        lock_wait_s: float = _LOCK_WAIT_S,
    ) -> None:
        self.url = url
        self.name = shown(url)
        self.module = module or driver()
        self._password = str(url.password or "")
        self._opened = False
        self._wait_until = time.monotonic() + lock_wait_s
        self.writer = self._engine(1, writes=True)
        self.reader = self._engine(readers, writes=False)
        try:
            self._prepare()
        except BaseException as error:
            self.close()
            translated = self.translate(error)
            if translated is error:
                raise
            raise translated from None
        self._opened = True

    def close(self) -> None:
        """Close every connection, and with the writer's the lock. Idempotent."""
        self.writer.dispose()
        self.reader.dispose()

    def translate(self, error: BaseException) -> BaseException:
        """A driver's error in ktrdr's words; any other error as it is."""
        orig: Any = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(orig, self.module.Error):
            return error
        told = self._told(orig)
        state = str(orig.sqlstate or "")
        if state in ("55P03", "40001", "40P01"):  # lock not available, serialization failure, deadlock
            return Unavailable(
                f"The ledger {self.name} is locked by another program ({told}). End that program's transaction "
                "and try again.",
                retry_after_s=_RETRY_S,
            )
        if state.startswith(("53", "58")) and state != "53300":  # out of disk or memory, input/output error
            return Unavailable(
                f"The ledger {self.name} cannot be written: {told}. Nothing of this request was recorded. Free some "
                "space on the database server, then try again."
            )
        if not self._opened and (refused := self._refusal(state, told)) is not None:
            return refused
        if isinstance(orig, (self.module.OperationalError, self.module.InterfaceError)) or state == "25006":
            return self._away(told)
        return KtrdrError(f"The ledger {self.name} failed: {told}.")

    def _told(self, orig: BaseException) -> str:
        """The first line of what the server or the driver said, without our password."""
        line = next(iter(str(orig).strip().splitlines()), type(orig).__name__).strip().rstrip(".")
        return line.replace(self._password, "***") if self._password else line

    def _refusal(self, state: str, told: str) -> InvalidSetting | None:
        """What nobody cures by waiting, said while opening. Failed log-ins come without an SQLSTATE."""
        if state == "42501":
            return InvalidSetting(
                f"The user in KTRDR_DATABASE_URL may not make tables in {self.name}: {told}. Make it the owner: "
                f"ALTER DATABASE {self.url.database} OWNER TO {self.url.username or 'USER'}"
            )
        if state == "25006":
            return InvalidSetting(
                f"{self.name} is read-only ({told}). Point KTRDR_DATABASE_URL at the primary server."
            )
        if "authentication failed" in told or "no password supplied" in told or "pg_hba.conf" in told:
            return InvalidSetting(
                f"{self.name} did not let us in: {told}. Correct the user and the password in KTRDR_DATABASE_URL."
            )
        if "FATAL" in told and "does not exist" in told:
            return InvalidSetting(
                f"{self.name} cannot be used: {told}. Correct KTRDR_DATABASE_URL, or create what is missing: "
                f"createuser --pwprompt USER; createdb --owner USER {self.url.database}"
            )
        return None

    def _away(self, told: str) -> Unavailable:
        if not self._opened:
            return Unavailable(
                f"The database {self.name} does not answer: {told}. Start it, or correct KTRDR_DATABASE_URL."
            )
        return Unavailable(
            f"The database {self.name} does not answer: {told}. The backend connects again by itself: repeat the "
            "request, a submission with the same Idempotency-Key.",
            retry_after_s=_RETRY_S,
        )

    def _engine(self, connections: int, *, writes: bool) -> Engine:
        engine = create_engine(
            self.url,
            module=self.module,
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,  # finds the sessions that ended while they were idle
            hide_parameters=True,
            connect_args=self._connect_args(),
        )

        def prepare(connection: Any, record: object) -> None:
            del record
            try:
                connection.autocommit = True
                connection.execute(_SESSION)
                if writes:
                    self._own(connection)
                connection.autocommit = False
                if not writes:  # a page and its total are read from one state
                    connection.read_only = True
                    connection.isolation_level = self.module.IsolationLevel.REPEATABLE_READ
            except BaseException:
                connection.close()  # SQLAlchemy never learns of a connection that fails here
                raise

        event.listen(engine, "connect", prepare)
        return engine

    def _connect_args(self) -> dict[str, Any]:
        """libpq's parameters; those named in the URL win."""
        ours = {
            "connect_timeout": 5,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "client_encoding": "utf8",
            "application_name": f"ktrdr backend {os.getpid()} on {socket.gethostname()}"[:63],
        }
        return {name: value for name, value in ours.items() if name not in self.url.query}

    def _own(self, connection: Any) -> None:
        """Take the ledger's lock for this session; waits only while opening.

        Raises
        ------
        Unavailable
            If another session holds it.
        """
        while not connection.execute("SELECT pg_try_advisory_lock(%s, %s)", _LOCK).fetchone()[0]:
            if not self._opened and time.monotonic() < self._wait_until:
                time.sleep(0.1)
                continue
            holder = connection.execute(_HOLDER, _LOCK).fetchone()
            who = f"{holder[0]} at {holder[1]}" if holder else "unknown"
            raise Unavailable(
                f"The ledger {self.name} is in use by another backend ({who}). Stop that one, or give this one a "
                "database of its own.",
                retry_after_s=_RETRY_S,
            )

    def _prepare(self) -> None:
        with self.writer.begin() as connection:
            encoding = connection.scalar(text("SHOW server_encoding"))
            if encoding != "UTF8":
                raise InvalidSetting(
                    f"{self.name} stores text as {encoding}, which cannot hold every character. Create the database "
                    f"with UTF-8: createdb --encoding UTF8 --template template0 {self.url.database}"
                )
            if connection.scalar(text("SHOW fsync")) == "off":
                _log.warning(
                    "%s runs with fsync=off: a crash of its machine may lose operations that were acknowledged",
                    self.name,
                )
            migrate(connection, self.name)
