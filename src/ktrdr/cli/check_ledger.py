"""``ktrdr doctor`` on the ledger, in a file or in PostgreSQL: read-only, and unnoticed by a backend that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ktrdr.cli.check import LOCAL_S, Check
from ktrdr.errors import InvalidInput

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["check_database"]


def check_database(home: Path, url: str | None) -> Check:
    """Whether the ledger can be read and which schema it has. Opened read-only; a backend that uses it notices
    nothing."""
    from ktrdr.operations.sql.place import ledger_place  # lazy: SQLAlchemy

    try:
        place = ledger_place(url or home / "ktrdr.db")
        return _check_file(place) if isinstance(place, Path) else _check_server(place)
    except InvalidInput as error:  # a URL of nothing we know, or a driver that is not installed
        return Check("database", "fail", error.message, "Correct KTRDR_DATABASE_URL, or leave it out.")


def _check_file(path: Path) -> Check:
    from ktrdr.operations.sql.sqlite import driver, reading_uri  # lazy, see above

    if not path.exists():
        return Check("database", "ok", f"{path} is made at the first start")
    module = driver()
    try:
        connection = module.connect(reading_uri(path)[0], uri=True, timeout=LOCAL_S)
        try:
            version = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
            count = connection.execute("SELECT count(*) FROM operations").fetchone()[0]
        finally:
            connection.close()
    except (module.Error, OSError, TypeError) as error:
        if "locked" in str(error) or "busy" in str(error):
            advice = (
                "Try again; if it stays so, close the program that holds it (a database browser, a backup)."
            )
            return Check("database", "warn", f"{path} is locked by another program at this moment", advice)
        advice = (
            "If it is damaged or not ktrdr's, move it away, restore a backup, or set KTRDR_HOME elsewhere."
        )
        return Check("database", "fail", f"{path} cannot be read: {error}", advice)
    return _check_schema(str(path), version, count)


def _check_server(url: URL) -> Check:
    from sqlalchemy import create_engine, inspect, text  # lazy, see above
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    from ktrdr.operations.sql.place import shown
    from ktrdr.operations.sql.postgres import driver

    name = shown(url)
    options = {"connect_timeout": int(LOCAL_S)}
    engine = create_engine(url, module=driver(), poolclass=NullPool, connect_args=options)
    try:
        with engine.connect() as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            if not inspect(connection).has_table("alembic_version"):
                return Check("database", "ok", f"{name} is filled at the first start")
            version = connection.scalar(text("SELECT version_num FROM alembic_version"))
            count = connection.scalar(text("SELECT count(*) FROM operations"))
    except DBAPIError:  # its text may hold the user's name and the address; the server's log says the rest
        advice = "Is the server running, and are user, password and database in KTRDR_DATABASE_URL right?"
        return Check("database", "fail", f"{name} cannot be read", advice)
    return _check_schema(name, str(version), int(count or 0))


def _check_schema(name: str, version: str, count: int) -> Check:
    from ktrdr.operations.sql.tables import SCHEMA  # lazy, see above

    told = f"{name}, schema {version}, {count} operations"
    if version == SCHEMA:
        return Check("database", "ok", told)
    if version < SCHEMA:
        advice = "Nothing to do: the next start of the backend brings it up to date. Make a copy first."
        return Check("database", "warn", f"{told}; this ktrdr has {SCHEMA}", advice)
    return Check(
        "database", "fail", f"{told}; this ktrdr knows up to {SCHEMA}", "Upgrade: pip install -U ktrdr"
    )
