"""Bringing a ledger's tables to the schema that this ktrdr knows: Alembic's migrations, in one transaction."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ktrdr.errors import InvalidSetting
from ktrdr.operations.tables import SCHEMA

__all__ = ["migrate"]

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, ledger: str) -> None:
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
            f"{ledger} is a database of another program (tables: {', '.join(sorted(names)[:5])}). Point "
            "KTRDR_DATABASE_URL at a file or database of its own."
        )
    else:
        version = None
    _upgrade(connection, ledger, version)


def _upgrade(connection: Connection, ledger: str, version: str | None) -> None:
    from alembic import command  # lazy: takes a fifth of a second, and only the first start needs it
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise InvalidSetting(
            f"The ledger {ledger} was written by a newer ktrdr (schema {version}; this one knows up to {SCHEMA}). "
            "Upgrade ktrdr: pip install --upgrade ktrdr; or use another ledger. Nothing was changed."
        )
    config.attributes["connection"] = connection
    command.upgrade(config, SCHEMA)
