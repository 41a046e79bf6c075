"""Bringing a ledger's tables to the schema that this ktrdr knows: Alembic's migrations, in one transaction."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ktrdr.errors import InvalidSetting
from ktrdr.operations.sql.tables import SCHEMA

__all__ = ["known_schemas", "migrate", "version_of"]

_MIGRATIONS = Path(__file__).parent / "migrations"


def known_schemas() -> frozenset[str]:
    """Every schema that a ledger of this ktrdr or of an earlier one may have."""
    return frozenset(path.name[:4] for path in (_MIGRATIONS / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def version_of(connection: Connection, ledger: str) -> str | None:
    """The schema of the tables; None where there are none yet.

    Raises
    ------
    InvalidSetting
        If a newer ktrdr made them, or something else did.
    """
    names = set(inspect(connection).get_table_names())
    if not names:
        return None
    if "alembic_version" not in names:
        raise InvalidSetting(
            f"{ledger} is a database of another program (tables: {', '.join(sorted(names)[:5])}). Point "
            "KTRDR_DATABASE_URL at a file or database of its own."
        )
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if version not in (None, SCHEMA) and version not in known_schemas():
        raise InvalidSetting(
            f"The ledger {ledger} was written by a newer ktrdr (schema {version}; this one knows up to {SCHEMA}). "
            "Upgrade ktrdr: pip install --upgrade ktrdr; or use another ledger. Nothing was changed."
        )
    return version


def migrate(connection: Connection, ledger: str, *, to: str = SCHEMA) -> None:
    """Bring the tables to a schema inside the connection's transaction: all of it or nothing.

    Raises
    ------
    InvalidSetting
        As :func:`version_of`.
    """
    if version_of(connection, ledger) == to:
        return
    from alembic import command  # lazy: takes a fifth of a second, and only the first start needs it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
