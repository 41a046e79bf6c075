"""Where a ledger is: the file or the PostgreSQL database that ``KTRDR_DATABASE_URL`` means."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ktrdr.errors import InvalidSetting

__all__ = ["ledger_place", "shown"]

_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_EXAMPLES = (
    "Examples: sqlite:////var/lib/ktrdr/ledger.db, postgresql+psycopg://ktrdr:PASSWORD@db.example/ktrdr"
)


def shown(url: URL) -> str:
    """The URL without its credentials and options, which may hold passwords."""
    return URL.create(url.drivername, host=url.host, port=url.port, database=url.database).render_as_string()


def ledger_place(where: str | Path) -> Path | URL:
    """The file meant by a path or an ``sqlite:///`` URL, or the URL of a PostgreSQL database.

    Raises
    ------
    InvalidSetting
        If it is a URL of another database, or of none at all, or a word that is neither URL nor file: made into a file,
        a misspelt URL would be a new and empty ledger. The message never shows a password.
    """
    if isinstance(where, Path) or "://" not in where:
        path = Path(where).expanduser()
        if isinstance(where, str) and not path.is_absolute() and path.suffix not in _SUFFIXES:
            *hidden, open_part = where.rpartition("@")
            told = f"...@{open_part}" if any(hidden) else open_part
            raise InvalidSetting(
                f"KTRDR_DATABASE_URL='{told}' is neither a URL nor the path of a file ({', '.join(_SUFFIXES)}). "
                f"{_EXAMPLES}"
            )
        return path.absolute()
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):  # ValueError: the port is no number
        scheme = where.partition("://")[0]
        raise InvalidSetting(
            f"KTRDR_DATABASE_URL='{scheme}://...' is not a URL; characters like @ : / % in a password are written "
            f"as %40 %3A %2F %25. {_EXAMPLES}"
        ) from None
    if url.drivername in _POSTGRES:
        url = url.set(drivername="postgresql+psycopg")
        if not url.database:
            raise InvalidSetting(f"KTRDR_DATABASE_URL='{shown(url)}' names no database. {_EXAMPLES}")
        return url
    if url.get_backend_name() != "sqlite":
        raise InvalidSetting(
            f"KTRDR_DATABASE_URL='{shown(url)}': the ledger lives in SQLite or, through the driver psycopg, in "
            f"PostgreSQL. {_EXAMPLES}"
        )
    if not url.database or url.database == ":memory:":
        raise InvalidSetting(
            f"KTRDR_DATABASE_URL='{shown(url)}' names no file; a ledger must survive its process. {_EXAMPLES}"
        )
    return Path(url.database).expanduser().absolute()
