"""Opening a ledger in PostgreSQL: whose database, which schema, and what is said while the server is away."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Engine, QueuePool, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from ktrdr.errors import InvalidSetting, KtrdrError, MissingExtra, Unavailable
from ktrdr.operations.sql.admission import ASK, READ_SCHEMA, bring_up_to_date, refusal
from ktrdr.operations.sql.place import shown

__all__ = ["LedgerServer", "LostRace", "connect_args", "driver"]

_log = logging.getLogger("ktrdr.operations")
_RETRY_S = 5.0
# read-only now; ended because it stood still in the middle of a transaction, or between two
_ENDED = ("25006", "25P03", "57P05")
# unique or foreign key violation, serialization failure, deadlock: two backends changed the same at once
_RACES = ("23505", "23503", "40001", "40P01")
# The server notices within half a minute that our machine is gone, and within seconds that we stand still in the
# middle of a transaction: its locks would keep the other backends waiting.
_SESSION = """
SET lock_timeout = '10s';
SET idle_in_transaction_session_timeout = '10s';
SET tcp_keepalives_idle = 15;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""


class LostRace(Unavailable):
    """Another backend's change came first; the same change, made again, finds that one."""

    slug = "lost-race"


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


def connect_args(url: URL) -> dict[str, Any]:
    """libpq's parameters for a session of a backend; those named in the URL win."""
    ours = {
        "connect_timeout": 5,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "client_encoding": "utf8",
        "application_name": f"ktrdr backend {os.getpid()} on {socket.gethostname()}"[:63],
    }
    return {name: value for name, value in ours.items() if name not in url.query}


class LedgerServer:
    """An open ledger in a PostgreSQL database: a ``writer`` engine of one session and a ``reader`` engine.

    Laws
    ----
    - Several backends may have the ledger open; each change is a transaction of its own, rows are locked before they
      are changed, and :class:`ktrdr.operations.sql.fence.Fence` guards what the leader alone may write.
    - Sessions that the server ended are replaced at the next use; until then calls raise Unavailable.
    - Once a newer ktrdr has begun to migrate the ledger, no session of this one changes it (NotLeader).
    - No message shows a user's name or password.

    Parameters
    ----------
    url
        As :func:`ktrdr.operations.sql.place.ledger_place` gives it.
    Raises
    ------
    MissingExtra
        If the driver is not installed.
    Unavailable
        If the server does not answer.
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
    ) -> None:
        self.url = url
        self.name = shown(url)
        self.module = module or driver()
        self._password = str(url.password or "")
        self._opened = False
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
        """Close every connection. Idempotent."""
        self.writer.dispose()
        self.reader.dispose()

    def translate(self, error: BaseException) -> BaseException:
        """A driver's error in ktrdr's words; any other error as it is."""
        orig: Any = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(orig, self.module.Error):
            return error
        told = self._told(orig)
        state = str(orig.sqlstate or "")
        if state in _RACES:
            return LostRace(
                f"The ledger {self.name} refused a change that met another one: {told}.", _RETRY_S
            )
        if state == "55P03":  # a lock that is not available
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
        ended = state in _ENDED or isinstance(
            orig, (self.module.OperationalError, self.module.InterfaceError)
        )
        if ended:
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
            connect_args=connect_args(self.url),
        )

        def prepare(connection: Any, record: object) -> None:
            del record
            try:
                connection.autocommit = True
                connection.execute(_SESSION)
                if self._opened:  # what opens the ledger may have to migrate it first
                    self._admit(connection)
                connection.autocommit = False
                if not writes:  # a page and its total are read from one state
                    connection.read_only = True
                    connection.isolation_level = self.module.IsolationLevel.REPEATABLE_READ
            except BaseException:
                connection.close()  # SQLAlchemy never learns of a connection that fails here
                raise

        event.listen(engine, "connect", prepare)
        return engine

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
            bring_up_to_date(connection, self.name)

    def _admit(self, connection: Any) -> None:
        """Hold the schema with this session; raises NotLeader if a newer ktrdr changes it or has changed it."""
        admitted = connection.execute(ASK).fetchone()[0]
        schema = connection.execute(READ_SCHEMA).fetchone() if admitted else None
        if (refused := refusal(admitted, None if schema is None else schema[0], self.name)) is not None:
            raise refused
