"""Servers and databases in PostgreSQL that the ledger refuses, and what it says of them."""

from __future__ import annotations

import subprocess
import sys
import time

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from ktrdr.errors import InvalidSetting, KtrdrError, MissingExtra, Unavailable
from ktrdr.operations.sql.place import ledger_place
from ktrdr.operations.sql.postgres import LedgerServer, driver
from ktrdr.operations.sql.tables import SCHEMA, metadata
from support.ports import kept_port
from support.postgres import Postgres

pytestmark = pytest.mark.integration


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.database()


def opened(url: str) -> LedgerServer:
    place = ledger_place(url)
    assert not hasattr(place, "exists")
    return LedgerServer(place)


def refusal(url: str, kind: type[KtrdrError] = InvalidSetting) -> str:
    with pytest.raises(kind) as caught:
        opened(url).close()
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


# --- what is refused, and how -------------------------------------------------------------------------------------


def test_a_wrong_password_is_said_without_it(postgres: Postgres, database: str) -> None:
    postgres.execute("postgres", f"CREATE ROLE {database}_guarded LOGIN PASSWORD 'right'")
    postgres.require_password(f"{database}_guarded")
    refused = eventually_refused(postgres.url(database, f"{database}_guarded", "s3cret"))
    assert "s3cret" not in refused
    assert "Correct the user and the password in KTRDR_DATABASE_URL" in refused
    postgres.execute("postgres", f"ALTER DATABASE {database} OWNER TO {database}_guarded")
    opened(postgres.url(database, f"{database}_guarded", "right")).close()


def eventually_refused(url: str) -> str:
    """The server takes new rules a moment after it was told; until then it lets everybody in."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            opened(url).close()
        except InvalidSetting as error:
            if "did not let us in" in str(error):
                return str(error)
        time.sleep(0.05)
    raise AssertionError("the server let everybody in")


def test_absent_users_and_databases_are_named_with_what_makes_them(postgres: Postgres, database: str) -> None:
    message = refusal(postgres.url("nowhere", password="s3cret"))
    assert 'database "nowhere" does not exist' in message
    assert "createdb --owner USER nowhere" in message
    assert 'role "nobody_here" does not exist' in refusal(postgres.url(database, "nobody_here", "s3cret"))


def test_a_server_that_does_not_answer_at_the_start_is_named() -> None:
    port = kept_port()
    message = refusal(f"postgresql+psycopg://me:s3cret@127.0.0.1:{port}/ktrdr", Unavailable)
    assert f"postgresql+psycopg://127.0.0.1:{port}/ktrdr does not answer" in message
    assert "Start it, or correct KTRDR_DATABASE_URL" in message


def test_without_the_right_to_make_tables_it_says_who_must_own_the_database(
    postgres: Postgres, database: str
) -> None:
    postgres.execute(database, f"CREATE ROLE {database}_guest LOGIN")
    postgres.execute(database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    message = refusal(postgres.url(database, f"{database}_guest"))
    assert f"ALTER DATABASE {database} OWNER TO {database}_guest" in message


def test_a_read_only_server_is_refused(postgres: Postgres, database: str) -> None:
    postgres.execute("postgres", f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    assert "Point KTRDR_DATABASE_URL at the primary server" in refusal(postgres.url(database))


def test_a_database_that_cannot_hold_every_character_is_refused(postgres: Postgres) -> None:
    name = postgres.database("ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    assert f"createdb --encoding UTF8 --template template0 {name}" in refusal(postgres.url(name))


def test_a_database_of_another_program_is_left_alone(postgres: Postgres, database: str) -> None:
    postgres.execute(database, "CREATE TABLE customers (name TEXT)")
    assert "another program (tables: customers)" in refusal(postgres.url(database))
    assert tables_of(postgres, database) == {"customers"}


def test_a_ledger_from_a_newer_version_is_refused_and_kept(postgres: Postgres, database: str) -> None:
    opened(postgres.url(database)).close()
    postgres.execute(database, "UPDATE alembic_version SET version_num = '9999'")
    message = refusal(postgres.url(database))
    assert f"newer ktrdr (schema 9999; this one knows up to {SCHEMA})" in message
    assert postgres.execute(database, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_missing_driver_names_the_extra(postgres: Postgres, database: str) -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'ktrdr\[postgres\]'"):
        driver("no_such_module")
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from ktrdr.errors import MissingExtra\n"
        "from ktrdr.operations.sql.ledger import SqlStore\n"
        "try: SqlStore(sys.argv[1])\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, postgres.url(database)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        "A ledger in PostgreSQL needs an optional dependency. Install it: pip install 'ktrdr[postgres]'"
    )


def test_errors_of_the_server_are_put_into_words(postgres: Postgres, database: str) -> None:
    errors = psycopg.errors
    ledger = opened(postgres.url(database, password="s3cret"))
    ledger.close()

    def said(kind: type[psycopg.Error], told: str) -> BaseException:
        wrapped = DBAPIError("SELECT 1", {}, kind(told))
        assert str(ledger.translate(kind(told))) == str(ledger.translate(wrapped))
        return ledger.translate(wrapped)

    assert "locked by another program" in str(said(errors.LockNotAvailable, "canceling statement"))
    assert "Nothing of this request was recorded" in str(said(errors.DiskFull, "No space left on device"))
    assert "does not answer" in str(said(errors.AdminShutdown, "terminating connection"))
    assert "does not answer" in str(said(errors.IdleInTransactionSessionTimeout, "terminating connection"))
    assert "does not answer" in str(said(errors.TooManyConnections, "too many clients already"))
    assert "does not answer" in str(said(errors.ReadOnlySqlTransaction, "now a standby"))
    for kind in (
        errors.LockNotAvailable,
        errors.DiskFull,
        errors.AdminShutdown,
        errors.ReadOnlySqlTransaction,
    ):
        assert isinstance(said(kind, "x"), Unavailable)
    unknown = said(errors.UndefinedTable, 'relation "models" does not exist\nLINE 1: SELECT s3cret')
    assert type(unknown) is KtrdrError
    assert str(unknown).endswith('failed: relation "models" does not exist.')
    assert "s3cret" not in str(said(errors.OperationalError, "could not log in with s3cret"))
    other = ValueError("x")
    assert ledger.translate(other) is other


# --- what is stored -----------------------------------------------------------------------------------------------


def tables_of(postgres: Postgres, database: str) -> set[object]:
    names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    return {row[0] for row in postgres.execute(database, names)}


def schema_of(postgres: Postgres, database: str) -> set[tuple[object, ...]]:
    """Every column and index of the ledger's tables."""
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
    )
    indexes = (
        "SELECT indexname, indexdef FROM pg_indexes "
        "WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    )
    return {*postgres.execute(database, columns), *postgres.execute(database, indexes)}


def test_the_migrations_make_the_tables_that_the_code_uses(postgres: Postgres, database: str) -> None:
    opened(postgres.url(database)).close()
    modelled = postgres.database()
    engine = create_engine(postgres.url(modelled))
    metadata.create_all(engine)
    engine.dispose()
    assert schema_of(postgres, database) == schema_of(postgres, modelled)


def test_text_is_ordered_by_its_bytes_and_never_too_long(postgres: Postgres, database: str) -> None:
    """As SQLite has it; the server's language would order pages in another way than cursors compare."""
    opened(postgres.url(database)).close()
    columns = [row for row in schema_of(postgres, database) if len(row) == 5]
    assert {kind for _, _, kind, _, _ in columns} == {"character varying", "bigint", "integer", "bytea"}
    assert all(order == "C" for _, _, kind, _, order in columns if kind == "character varying")


def test_sessions_are_careful(postgres: Postgres, database: str, caplog: pytest.LogCaptureFixture) -> None:
    postgres.execute("postgres", f"ALTER DATABASE {database} SET synchronous_commit = off")
    ledger = opened(postgres.url(database))
    try:
        with ledger.writer.begin() as connection:
            assert connection.scalar(text("SHOW synchronous_commit")) == "on"
            assert connection.scalar(text("SHOW lock_timeout")) == "10s"
        with ledger.reader.begin() as connection:
            assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
            with pytest.raises(DBAPIError, match="read-only transaction"):
                connection.execute(text("DELETE FROM operations"))
        assert "s3cret" not in repr(ledger.writer)
    finally:
        ledger.close()
    assert "fsync=off" in caplog.text


def test_what_the_url_says_about_the_connection_wins(postgres: Postgres, database: str) -> None:
    ledger = opened(postgres.url(database) + "?application_name=mine&connect_timeout=7")
    try:
        with ledger.writer.begin() as connection:
            assert connection.scalar(text("SHOW application_name")) == "mine"
    finally:
        ledger.close()
