"""Who may use a ledger in PostgreSQL while a newer ktrdr migrates it, and after: one lock, held by every session."""

from __future__ import annotations

import time

from sqlalchemy import Connection, text

from ktrdr.errors import NotLeader, Unavailable
from ktrdr.operations.sql.schema import migrate, version_of
from ktrdr.operations.sql.tables import SCHEMA

__all__ = ["ASK", "HOLD", "LEADER_LOCK", "READ_SCHEMA", "bring_up_to_date", "refusal"]

LEADER_LOCK = (0x6B747264, 1)
"""The advisory lock of the leader among the backends: "ktrd", the ledger; such locks are per database."""
_SCHEMA_LOCK = {"kind": LEADER_LOCK[0], "what": 2}
_PATIENCE_S = 60.0
_AGAIN_S = 5.0
_PLACE = f"{_SCHEMA_LOCK['kind']}, {_SCHEMA_LOCK['what']}"

ASK = f"SELECT pg_try_advisory_lock_shared({_PLACE})"
"""The first thing that a session asks: false while somebody migrates, else it holds the schema until it ends."""
HOLD = f"SELECT pg_advisory_lock_shared({_PLACE})"
READ_SCHEMA = "SELECT version_num FROM alembic_version"

# One start at a time migrates; the others wait for it, then find the tables made.
_TURNS = text(f"SET LOCAL lock_timeout = '{_PATIENCE_S:g}s'")
_MY_TURN = text(f"SELECT pg_advisory_xact_lock({LEADER_LOCK[0]}, 3)")
_AS_BEFORE = text("SET LOCAL lock_timeout = '10s'")
# a queued request for the lock lets no new session in; those that came just before it are ended in the next turn
_TURN = "SET LOCAL lock_timeout = '2s'"
_TAKE = text("SELECT pg_advisory_xact_lock(:kind, :what)")
_END_OTHERS = text(
    """
    SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.classid = :kind AND l.objid = :what AND l.objsubid = 2
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.mode = 'ShareLock' AND l.granted AND l.pid <> pg_backend_pid() AND a.usename = current_user
    """
)


def refusal(admitted: bool, schema: str | None, ledger: str) -> NotLeader | None:
    """Why a new session may not be used; None if it may.

    It is NotLeader, because that is what clients and workers take as the advice to ask the next backend.
    """
    if not admitted:
        return NotLeader(
            f"A newer ktrdr is bringing the ledger {ledger} to its schema. Try again, or ask that backend.",
            _AGAIN_S,
        )
    if schema != SCHEMA:
        return NotLeader(
            f"The ledger {ledger} has schema {schema} since a newer ktrdr brought it there; this backend knows {SCHEMA} "
            "and takes no more part. Upgrade it and start it again: pip install --upgrade ktrdr",
            _AGAIN_S,
        )
    return None


def bring_up_to_date(connection: Connection, ledger: str) -> None:
    """Migrate the ledger if it needs that, having ended the sessions of all backends; then hold its schema.

    Their programs are older than this one. Their sessions end in the middle of whatever they do, which they take as a
    database that was away for a moment; new ones are refused (:func:`refusal`). So nothing of theirs is written after
    the migration began. If it fails, nothing was changed, and they go on.

    Raises
    ------
    InvalidSetting
        If a newer ktrdr made the tables, or something else did; nobody was disturbed.
    Unavailable
        If a backend uses the database as another user, or another start has been migrating for a minute.
    """
    if version_of(connection, ledger) != SCHEMA:
        connection.execute(_TURNS)
        connection.execute(_MY_TURN)
        _migrate_alone(connection, ledger)
        connection.execute(_AS_BEFORE)
    connection.execute(text(HOLD))


def _migrate_alone(connection: Connection, ledger: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while version_of(connection, ledger) != SCHEMA:
        connection.execute(_END_OTHERS, _SCHEMA_LOCK)
        if _locked(connection):
            migrate(connection, ledger)
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"The ledger {ledger} must be brought to schema {SCHEMA}, and backends of an older version that log in to "
                "the database as another user keep it. Stop them, then start this one again."
            )


def _locked(connection: Connection) -> bool:
    savepoint = connection.begin_nested()
    connection.execute(text(_TURN))
    try:
        connection.execute(_TAKE, _SCHEMA_LOCK)
    except connection.dialect.loaded_dbapi.Error:
        savepoint.rollback()
        return False
    return True
