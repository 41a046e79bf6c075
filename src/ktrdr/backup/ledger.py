"""A ledger's tables as lines of JSON: read from one consistent state, written into an empty database.

The form is the same for SQLite and PostgreSQL, and tables are read as they are found, whatever their schema.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    NullPool,
    Table,
    create_engine,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from ktrdr.errors import NotFound, Unavailable
from ktrdr.operations.sql import postgres, sqlite
from ktrdr.operations.sql.place import shown

__all__ = ["Row", "dump_table", "fill_table", "read_snapshot", "schema_of", "tables_of"]

Row = dict[str, Any]
_ROWS_AT_ONCE = 500
_VERSION = "alembic_version"
_OF_THE_RUNNING = ("cluster", "worker_states")


@contextmanager
def read_snapshot(place: Path | URL, scratch: Path) -> Iterator[Connection]:
    """A connection to one consistent state of a ledger, in use or not; nobody who uses it notices.

    A file is copied into ``scratch`` by SQLite's own online backup, a PostgreSQL database is read in one transaction.

    Raises
    ------
    NotFound
        If there is no ledger.
    Unavailable
        If it cannot be read now.
    """
    engine = _copied(place, scratch) if isinstance(place, Path) else _served(place)
    name = str(place) if isinstance(place, Path) else shown(place)
    try:
        with engine.begin() as connection:
            if not inspect(connection).has_table(_VERSION):
                raise _no_ledger(name)
            yield connection
    except DBAPIError as error:
        raise Unavailable(f"The ledger {name} cannot be read: {_first_line(error)}") from None
    finally:
        engine.dispose()


def _no_ledger(name: str) -> NotFound:
    return NotFound("ledger", name, hint="Set KTRDR_HOME, or KTRDR_DATABASE_URL, as the backend has it")


def _first_line(error: DBAPIError) -> str:
    """What the database said, without what may hold names of users and addresses."""
    line = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    return line if "connection" not in line else "it does not answer."


def _copied(path: Path, scratch: Path) -> Engine:
    if not path.is_file():
        raise _no_ledger(str(path))
    module, copy = sqlite.driver(), scratch / "ledger.db"
    try:
        while True:
            uri, assumed_idle = sqlite.reading_uri(path)
            source = module.connect(uri, uri=True, timeout=30.0)
            target = module.connect(str(copy))
            try:
                source.backup(target)
            finally:
                target.close()
                source.close()
            if not assumed_idle or sqlite.reading_uri(path)[1]:
                break  # else somebody began to use it while it was read as a file at rest
    except module.Error as error:
        raise Unavailable(f"The ledger {path} cannot be read: {error}.") from None
    return create_engine(URL.create("sqlite", database=str(copy)), module=module, poolclass=NullPool)


def _served(url: URL) -> Engine:
    return create_engine(
        url,
        module=postgres.driver(),
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="REPEATABLE READ",
        connect_args={"connect_timeout": 10, "options": "-c default_transaction_read_only=on"},
    )


def schema_of(connection: Connection) -> str:
    """The migration up to which the tables are."""
    return str(connection.scalar(text(f"SELECT version_num FROM {_VERSION}")))  # noqa: S608 (a constant)


def tables_of(connection: Connection) -> list[Table]:
    """Every table but the schema's own and those about the backends that run, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name not in (_VERSION, *_OF_THE_RUNNING)]


def dump_table(connection: Connection, table: Table, file: IO[bytes], see: Callable[[Row], None]) -> int:
    """Write the columns' names and then each row as a line of JSON; ``see`` is shown each. Returns how many rows."""
    names = [column.name for column in table.columns]
    file.write(json.dumps(names).encode() + b"\n")
    count = 0
    streaming = connection.execution_options(stream_results=True, yield_per=_ROWS_AT_ONCE)
    for row in streaming.execute(select(table)).mappings():
        see(dict(row))
        file.write(json.dumps([_plain(row[name]) for name in names]).encode() + b"\n")
        count += 1
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    return value


def fill_table(connection: Connection, table: Table, lines: Iterator[bytes]) -> int:
    """Insert what :func:`dump_table` wrote; returns how many rows."""
    names = json.loads(next(lines))
    count = 0
    while batch := [
        dict(zip(names, map(_value, json.loads(line)), strict=True)) for line in islice(lines, _ROWS_AT_ONCE)
    ]:
        connection.execute(table.insert(), batch)
        count += len(batch)
    if connection.dialect.name == "postgresql":
        _advance_sequences(connection, table)
    return count


def _value(plain: Any) -> Any:
    return base64.b64decode(plain["base64"]) if isinstance(plain, dict) else plain


def _advance_sequences(connection: Connection, table: Table) -> None:
    """Rows brought their numbers along; the next one that the server gives must be another."""
    for column in table.columns:
        name = connection.scalar(
            text("SELECT pg_get_serial_sequence(:t, :c)"), {"t": table.name, "c": column.name}
        )
        if name is not None:
            largest = connection.scalar(select(column).order_by(column.desc()).limit(1))
            if largest is not None:
                connection.execute(text("SELECT setval(CAST(:s AS regclass), :n)"), {"s": name, "n": largest})
