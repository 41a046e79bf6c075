"""Opening a ledger: the version gate, the lock, the schema, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError

from ktrdr.errors import InvalidSetting, KtrdrError, Unavailable
from ktrdr.operations.events import CancelRequested, Finished
from ktrdr.operations.model import Assignment, OperationStatus, OperationType
from ktrdr.operations.paging import encode_cursor
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.sql.place import ledger_place, shown
from ktrdr.operations.sql.sqlite import LedgerFile, driver, journal_for
from ktrdr.operations.sql.tables import SCHEMA, metadata, operations
from ktrdr.operations.store import OperationQuery
from ktrdr.testing.operations import T0, a_model, a_submission, an_outcome, assigned_to

PENDING, ASSIGNED, _, _, COMPLETED, FAILED, _ = OperationStatus


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[LedgerFile]:
    file = LedgerFile(path)
    yield file
    file.close()


@pytest.mark.parametrize(
    ("version", "journal"),
    [
        ((3, 6, 23), "wal"),
        ((3, 7, 0), "delete"),
        ((3, 40, 1), "delete"),
        ((3, 51, 2), "delete"),
        ((3, 51, 3), "wal"),
        ((3, 53, 4), "wal"),
        ((4, 0, 0), "wal"),
    ],
)
def test_the_write_ahead_log_is_used_where_it_is_safe(version: tuple[int, ...], journal: str) -> None:
    assert journal_for(version) == journal


def test_without_the_newer_sqlite_pythons_own_is_used() -> None:
    assert driver("no_such_module") is sqlite3.dbapi2


def test_every_connection_is_careful(ledger: LedgerFile) -> None:
    def pragma(engine, name: str) -> object:
        with engine.begin() as connection:
            return connection.scalar(text(f"PRAGMA {name}"))

    for engine in (ledger.writer, ledger.reader):
        assert pragma(engine, "synchronous") == 2  # FULL
        assert pragma(engine, "foreign_keys") == 1
        assert pragma(engine, "journal_mode") == journal_for(ledger.module.sqlite_version_info)


def test_an_older_sqlite_gets_the_rollback_journal_even_on_a_file_made_with_a_newer_one(path: Path) -> None:
    LedgerFile(path).close()
    file = LedgerFile(path, module=sqlite3.dbapi2)
    try:
        with file.reader.begin() as connection:
            assert connection.scalar(text("PRAGMA journal_mode")) == journal_for(sqlite3.sqlite_version_info)
    finally:
        file.close()


def test_a_reader_cannot_write(ledger: LedgerFile) -> None:
    with ledger.reader.begin() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.execute(text("DELETE FROM operations"))


# --- where --------------------------------------------------------------------------------------------------------


def test_a_path_or_a_url_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "l 100%.db"
    assert (
        ledger_place(file) == ledger_place(str(file)) == ledger_place(f"sqlite:///{file}".replace("%", "%25"))
    )
    assert ledger_place("relative.db").is_absolute()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("mysql://me:secret@db/ktrdr", "mysql://db/ktrdr': the ledger lives in SQLite or"),
        (
            "postgresql+asyncpg://me:secret@db/ktrdr",
            r"postgresql\+asyncpg://db/ktrdr'.*through the driver psycopg",
        ),
        ("postgresql://me:secret@db", "'postgresql\\+psycopg://db' names no database"),
        ("postgresql://me:sec:ret@db:5432x/ktrdr", "is not a URL; characters like"),
        ("postgresql://me:secret/ktrdr", "is not a URL; characters like"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("://", "is not a URL"),
        ("foo", "'foo' is neither a URL nor the path of a file"),
        ("postgresql:/db/ktrdr", "'postgresql:/db/ktrdr' is neither a URL nor the path of a file"),
        ("me:secret@db/ktrdr", "'...@db/ktrdr' is neither a URL nor the path of a file"),
        ("me:se@secret@db.example/ktrdr", "'...@db.example/ktrdr' is neither"),
    ],
)
def test_other_databases_are_refused_with_an_example(where: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message) as caught:
        ledger_place(where)
    assert "secret" not in str(caught.value)
    assert "sqlite:////var/lib/ktrdr/ledger.db" in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres"])
def test_postgresql_may_be_named_as_others_do(scheme: str) -> None:
    place = ledger_place(f"{scheme}://me:p%40ss@db:5433/ktrdr?sslmode=require")
    assert isinstance(place, URL)
    assert (place.drivername, place.password, place.port) == ("postgresql+psycopg", "p@ss", 5433)
    assert shown(place) == "postgresql+psycopg://db:5433/ktrdr"


# --- the lock -----------------------------------------------------------------------------------------------------


def test_one_backend_owns_a_ledger_at_a_time(path: Path) -> None:
    first = LedgerFile(path)
    with pytest.raises(
        Unavailable, match=rf"ledger\.db is in use by another backend \(process {os.getpid()}\)"
    ):
        LedgerFile(path)
    first.close()
    first.close()
    LedgerFile(path).close()


def test_a_lock_file_left_behind_locks_nobody_out(path: Path) -> None:
    path.parent.mkdir()
    lock = path.with_name("ledger.db.lock")
    lock.write_text("99999")
    ledger = LedgerFile(path)
    assert lock.read_text().split() == [str(os.getpid())], "it says who has it now"
    ledger.close()


# --- refusals -----------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(InvalidSetting) as caught:
        LedgerFile(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    assert "permissions" in refusal(tmp_path)


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Point KTRDR_HOME" in refusal(tmp_path / "file" / "ledger.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_cannot_be_written_is_named(path: Path) -> None:
    LedgerFile(path).close()
    path.chmod(0o400)
    assert "permissions" in refusal(path)


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, but somebody's work" * 100)
    before = path.read_bytes()
    assert "not a SQLite database or is damaged" in refusal(path)
    assert path.read_bytes() == before


def test_a_damaged_ledger_says_so(path: Path) -> None:
    LedgerFile(path).close()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xee" * (4096 - 100)
    path.write_bytes(content)
    assert "is damaged" in refusal(path)


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    assert "another program (tables: customers)" in refusal(path)
    assert tables_of(path) == {"customers"}


def test_a_ledger_from_a_newer_version_is_refused_and_kept(path: Path) -> None:
    LedgerFile(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    message = refusal(path)
    assert f"newer ktrdr (schema 9999; this one knows up to {SCHEMA})" in message
    assert "pip install --upgrade" in message
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
    connection.close()


def test_errors_of_the_driver_are_put_into_words(ledger: LedgerFile) -> None:
    def said(told: str) -> BaseException:
        return ledger.translate(OperationalError("SELECT 1", {}, Exception(told)))

    assert isinstance(said("database is locked"), Unavailable)
    assert isinstance(said("database or disk is full"), Unavailable)
    assert isinstance(said("disk I/O error"), Unavailable)
    assert isinstance(said("attempt to write a readonly database"), InvalidSetting)
    assert type(said("something new")) is KtrdrError
    for told in ("database is locked", "database or disk is full", "something new"):
        assert str(ledger.path) in str(said(told))
        assert told in str(said(told))
    other = ValueError("x")
    assert ledger.translate(other) is other


async def test_a_closed_ledger_says_so(path: Path) -> None:
    store = SqlStore(path)
    assert store.name == str(path)
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.get("op_1")
    with pytest.raises(Unavailable, match="closed"):
        await store.submit(a_submission(), T0)


async def test_submissions_that_come_together_share_transactions(path: Path) -> None:
    store = SqlStore(path)
    before = store.transactions
    await asyncio.gather(*(store.submit(a_submission(f"op_{n}"), T0) for n in range(200)))
    shared = store.transactions - before
    await store.close()
    assert 0 < shared < 100


async def test_a_change_that_cannot_be_written_harms_none_that_came_with_it(path: Path) -> None:
    """What the unit as a whole cannot write is made piece by piece."""
    store = SqlStore(path)
    for number in range(3):
        await store.submit(a_submission(f"op_{number}"), T0, assign=assigned_to())
    done = Finished(Assignment("worker-1", "instance-1", 1), an_outcome(artifacts={"model": "d" * 64}))
    bad = a_model(operation_id="op_1", metrics={"not": object()})
    outcomes = await asyncio.gather(
        store.apply("op_0", done, T0, model=a_model("m_0")),
        store.apply("op_1", done, T0, model=bad),
        store.apply("op_2", done, T0, model=a_model("m_2")),
        store.submit(a_submission("op_3"), T0),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Transition",
        "TypeError",
        "Transition",
        "Operation",
    ]
    assert [(await store.get(f"op_{n}")).status for n in range(4)] == [
        COMPLETED,
        ASSIGNED,
        COMPLETED,
        PENDING,
    ]
    assert {model.model_id for model in await store.models()} == {"m_0", "m_2"}
    assert sum((await store.counts()).values()) == 4
    await store.close()


async def test_damage_met_while_reading_is_put_into_words(path: Path) -> None:
    store = SqlStore(path)
    try:
        with store._ledger.writer.begin() as connection:
            connection.execute(text("ALTER TABLE models RENAME TO lost"))
        with pytest.raises(KtrdrError, match=r"ledger\.db failed: no such table: models"):
            await store.models()
    finally:
        await store.close()


# --- the schema ---------------------------------------------------------------------------------------------------


def tables_of(path: Path) -> set[str]:
    engine = create_engine(f"sqlite:///{path}")
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def schema_of(path: Path) -> dict[str, str]:
    """Every table and index by name, as SQL without its blanks."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: "".join(sql.split()) for name, sql in rows if name != "alembic_version"}


def test_the_migrations_make_the_tables_that_the_code_uses(path: Path, tmp_path: Path) -> None:
    LedgerFile(path).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'model.db'}")
    metadata.create_all(engine)
    engine.dispose()
    assert schema_of(path) == schema_of(tmp_path / "model.db")


def test_the_schema_is_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory

    from ktrdr.operations.sql import sqlite

    assert ScriptDirectory(str(Path(sqlite.__file__).parent / "migrations")).get_heads() == [SCHEMA]


def test_every_status_has_a_partial_index() -> None:
    names = {index.name: index for index in operations.indexes}
    for status in OperationStatus:
        index = names[f"ix_operations_{status}"]
        assert str(index.dialect_options["sqlite"]["where"]) == f"status = '{status}'"


async def test_a_ledger_survives_reopening(path: Path) -> None:
    store = SqlStore(path)
    made = await store.submit(a_submission(), T0)
    await store.close()
    again = SqlStore(path)
    assert await again.get("op_1") == made
    await again.close()


def _pages(**query: Any) -> Callable[[SqlStore], Awaitable[object]]:
    return lambda store: store.page(OperationQuery(cursor=encode_cursor((5, "op")), **query))


@pytest.mark.parametrize(
    ("question", "indexes"),
    [
        pytest.param(lambda store: store.pending(T0, 10), {"queue"}, id="pending"),
        pytest.param(
            lambda store: store.pending(T0, 10, [OperationType.TRAINING], [OperationType.TRAINING]),
            {"queue_any"},
            id="pending for workers without a GPU",
        ),
        pytest.param(lambda store: store.live(), {"assigned", "running", "cancelling"}, id="live"),
        pytest.param(lambda store: store.held("w"), {"held"}, id="held"),
        pytest.param(_pages(statuses=(FAILED,)), {"failed"}, id="page of a status"),
        pytest.param(_pages(statuses=(FAILED, PENDING)), {"failed", "pending"}, id="page of two"),
        pytest.param(_pages(operation_type=OperationType.TRAINING), {*OperationStatus}, id="page of a type"),
        pytest.param(_pages(worker_id="w"), {"worker"}, id="page of a worker"),
        pytest.param(_pages(), {"newest"}, id="page"),
        pytest.param(lambda store: store.queue_position("op_1"), {"queue"}, id="queue position"),
    ],
)
async def test_no_question_walks_what_it_does_not_show(
    path: Path, question: Callable[[SqlStore], Awaitable[object]], indexes: set[str]
) -> None:
    """SQLite's own plan for the statements as they are really sent: searches of the indexes named, nothing sorted but
    the few that the searches found."""
    store = SqlStore(path)
    await store.submit(a_submission(), T0)
    sent: list[tuple[str, object]] = []
    engine = store._ledger.reader
    event.listen(engine, "before_cursor_execute", lambda *a: sent.append((a[2], a[3])))
    await question(store)
    asked = [(statement, values) for statement, values in sent if "operations" in statement]
    plan: list[str] = []
    with engine.begin() as connection:
        for statement, values in asked:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            plan += [row[-1] for row in rows if "operations" in row[-1]]
    await store.close()
    by_id = "USING INDEX sqlite_autoindex_operations_1 (operation_id=?)"
    searched = [step for step in plan if by_id not in step]
    few = tuple(
        f"SCAN operations USING INDEX ix_operations_{s}" for s in ("assigned", "running", "cancelling")
    )
    assert all(step.startswith(("SEARCH operations USING ", *few)) for step in searched), plan
    assert {step.split("ix_operations_")[1].split()[0] for step in searched} == indexes


async def test_an_older_ledger_is_migrated_with_its_counts(path: Path) -> None:
    """As version 0002 wrote it: everything is there afterwards, and counted."""
    store = SqlStore(path)
    for number in range(3):
        wants = {"prefer_gpu": True, "require_gpu": number == 2}
        await store.submit(a_submission(f"op_{number}", requirements=wants), T0)
    await store.apply("op_0", CancelRequested(), T0)
    before = await store.page(OperationQuery())
    with store._ledger.writer.begin() as connection:
        downgrade(connection)
    await store.close()
    assert "tallies" not in tables_of(path)
    again = SqlStore(path)
    assert await again.page(OperationQuery()) == before
    assert await again.counts() == {
        (OperationType.BACKTESTING, PENDING): 2,
        (OperationType.BACKTESTING, OperationStatus.CANCELLED): 1,
    }
    kinds = tuple(OperationType)
    assert [found.operation_id for found in await again.pending(T0, 9, kinds, kinds)] == ["op_1"]
    await again.close()
    engine = create_engine(f"sqlite:///{path.with_name('model.db')}")
    metadata.create_all(engine)
    engine.dispose()
    assert set(schema_of(path)) == set(schema_of(path.with_name("model.db")))


def downgrade(connection: Connection) -> None:
    """Back to schema 0002, by hand; migrations only go forward."""
    for index in (*OperationStatus, "queue", "queue_any", "ended", "held"):
        connection.execute(text(f"DROP INDEX ix_operations_{index}"))
    for table in ("tallies", "tokens", "cluster", "worker_states"):
        connection.execute(text(f"DROP TABLE {table}"))
    for column in ("compacted", "older_checkpoint_digest", "requires_gpu", "request_digest"):
        connection.execute(text(f"ALTER TABLE operations DROP COLUMN {column}"))
    connection.execute(text("ALTER TABLE workers DROP COLUMN enrolled_by"))
    connection.execute(text("CREATE INDEX ix_operations_counts ON operations (operation_type, status)"))
    for status in OperationStatus:
        connection.execute(
            text(f"CREATE INDEX ix_operations_{status} ON operations (created_us) WHERE status = '{status}'")
        )
    connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
