"""Bringing a ledger's tables to the schema that this ktrdr knows: Alembic's migrations, in one transaction."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ktrdr.errors import InvalidSetting
from ktrdr.operations.tables import SCHEMA

__all__ = ["known_schemas", "migrate"]

_MIGRATIONS = Path(__file__).parent / "migrations"


def known_schemas() -> frozenset[str]:
    """Every schema that a ledger of this ktrdr or of an earlier one may have."""
    return frozenset(path.name[:4] for path in (_MIGRATIONS / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def migrate(connection: Connection, ledger: str, *, to: str = SCHEMA) -> None:
    """Bring the tables to a schema inside the connection's transaction: all of it or nothing.

    Raises
    ------
    InvalidSetting
        If a newer ktrdr made them, or something else did.
    """
    names = set(inspect(connection).get_table_names())
    if "alembic_version" in names:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if version == to:
            return
    elif names:
        raise InvalidSetting(
            f"{ledger} is a database of another program (tables: {', '.join(sorted(names)[:5])}). Point "
            "KTRDR_DATABASE_URL at a file or database of its own."
        )
    else:
        version = None
    _upgrade(connection, ledger, version, to)


def _upgrade(connection: Connection, ledger: str, version: str | None, to: str) -> None:
    from alembic import command  # lazy: takes a fifth of a second, and only the first start needs it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    if version is not None and version not in known_schemas():
        raise InvalidSetting(
            f"The ledger {ledger} was written by a newer ktrdr (schema {version}; this one knows up to {SCHEMA}). "
            "Upgrade ktrdr: pip install --upgrade ktrdr; or use another ledger. Nothing was changed."
        )
    config.attributes["connection"] = connection
    command.upgrade(config, to)
