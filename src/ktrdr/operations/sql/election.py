"""The election among backends whose ledger is in PostgreSQL: one session, one advisory lock, one row."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection
from sqlalchemy import URL

from ktrdr.errors import NotLeader
from ktrdr.operations.leadership import Leader, Leadership, News
from ktrdr.operations.sql.admission import ASK, LEADER_LOCK, READ_SCHEMA, refusal
from ktrdr.operations.sql.place import shown
from ktrdr.operations.sql.postgres import connect_args

__all__ = ["PostgresLeadership"]

_log = logging.getLogger("ktrdr.operations")
_CHANNEL = "ktrdr"
_BEATS = 5  # looks at the ledger per lease
_LONGEST_BEAT_S = 1.0
_AGAIN_S = 1.0
# PostgreSQL ends a session that asked nothing for the lease (14 and newer): a leader that stands still loses the lock
_SESSION = """
SELECT set_config('idle_session_timeout', %(lease)s, false) FROM pg_settings WHERE name = 'idle_session_timeout'
"""
_TERM = """
INSERT INTO cluster (id, epoch, leader, address, since_us)
VALUES (1, 1, %(name)s, %(address)s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
ON CONFLICT (id) DO UPDATE SET epoch = cluster.epoch + 1,
  leader = excluded.leader, address = excluded.address, since_us = excluded.since_us
RETURNING epoch
"""
_LEADER = "SELECT epoch, leader, address FROM cluster WHERE id = 1"

Tell = Callable[[str, str], Awaitable[None]]


class _Over(Exception):
    """The term ended: another backend leads."""


class PostgresLeadership(Leadership):
    """Leads while its session holds the ledger's advisory lock.

    The session does nothing else: it asks for the lock, five times a lease, or shows that it lives, and hears news.

    - A leader whose process dies frees the lock at once; one that stands still, or whose machine is cut off, loses it
      ``lease_s`` after its last sign, because the server ends the session. Another backend asks within a fifth of that
      (at most a second).
    - A leader that gets no answer for ``lease_s`` steps down by itself.

    Parameters
    ----------
    url
        Of the database, as :func:`ktrdr.operations.sql.place.ledger_place` gives it.
    name, address
        How this backend is called in messages, and where it serves.
    lease_s
        See above.
    tell
        Sends a text to a channel (:meth:`ktrdr.operations.sql.ledger.SqlStore.tell`).
    """

    def __init__(
        self, url: URL, name: str, address: str | None = None, *, lease_s: float = 10.0, tell: Tell
    ) -> None:
        super().__init__(name, address)
        self._url, self._lease_s, self._tell = url, lease_s, tell
        self._beat_s = min(lease_s / _BEATS, _LONGEST_BEAT_S)
        self._origin = secrets.token_hex(8)  # of our own news, which come back
        self._connection: AsyncConnection[Any] | None = None
        self._resigned = False
        self._told = ""

    async def run(self) -> None:
        self._resigned = False
        while not self._resigned:
            try:
                await self._session()
            except (psycopg.Error, OSError, TimeoutError, NotLeader, _Over) as error:
                if self._epoch is not None:
                    _log.warning("This backend leads no more (epoch %d): %s", self._epoch, _line(error))
                else:
                    _log.debug("The election waits for the ledger: %s", _line(error))
            finally:
                self._became(None)
                await self._close()
            if not self._resigned:
                await asyncio.sleep(min(_AGAIN_S, self._lease_s))

    async def resign(self) -> None:
        self._resigned = True
        self._became(None)
        await self._close()

    async def tell(self, news: News) -> None:
        await self._tell(_CHANNEL, f"{self._origin} {news}")

    # --- the session --------------------------------------------------------------------------------------------

    async def _session(self) -> None:
        """One session, from its beginning until it is lost."""
        given = self._url.translate_connect_args(username="user", database="dbname")
        options = {**connect_args(self._url), **given, **self._url.query}
        async with asyncio.timeout(2 * self._lease_s):  # asyncio.wait_for (3.11) may lose a cancel
            self._connection = connection = await AsyncConnection.connect(autocommit=True, **options)
        await self._ask(_SESSION, {"lease": f"{max(1, round(self._lease_s * 1000))}ms"})
        await self._ask("SELECT set_config('lock_timeout', '10s', false)")
        [admitted] = await self._ask(ASK)
        [schema] = await self._ask(READ_SCHEMA)
        if (refused := refusal(admitted, schema, shown(self._url))) is not None:
            self._outdated(refused)
            raise refused
        await self._ask(f"LISTEN {_CHANNEL}")
        while not self._resigned:
            if self._epoch is None:
                await self._stand()
            await self._look()
            self.decided.set()
            async for notice in connection.notifies(timeout=self._beat_s):
                origin, _, news = notice.payload.partition(" ")
                if origin != self._origin:
                    self.on_news(news)

    async def _stand(self) -> None:
        """Take the lock if it is free, and with it a new term."""
        row = await self._ask("SELECT pg_try_advisory_lock(%s, %s)", LEADER_LOCK)
        if not row[0]:
            return
        row = await self._ask(_TERM, {"name": self.name, "address": self.address})
        if self._resigned:
            return
        _log.info("This backend leads (epoch %d)", row[0])
        self._became(int(row[0]))

    async def _look(self) -> None:
        """See who leads; for the leader this is the sign that it lives."""
        epoch, name, address = await self._ask(_LEADER) or (0, None, None)
        if self._epoch is not None and epoch != self._epoch:
            raise _Over(f"the ledger is in epoch {epoch}")
        if epoch:
            self.leader = Leader(int(epoch), str(name or "unknown"), address)

    async def _ask(self, statement: str, values: Any = None) -> Any:
        connection = self._connection
        if connection is None:
            raise psycopg.OperationalError("the session was closed")
        asking = asyncio.ensure_future(connection.execute(statement, values))
        await asyncio.wait({asking}, timeout=self._lease_s)
        if not asking.done():
            asking.cancel()  # not awaited: that would take further seconds where the network is cut
            raise TimeoutError(f"the database did not answer within {self._lease_s:g} s")
        cursor = asking.result()
        return await cursor.fetchone() if cursor.description else None

    def _outdated(self, refused: NotLeader) -> None:
        """Said once; a backend of an earlier version stays up until somebody upgrades it."""
        if refused.message != self._told:
            self._told = refused.message
            _log.error("%s", refused.message)

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()


def _line(error: BaseException) -> str:
    """The first line of what was said; a driver's error may hold the address, never a password."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
