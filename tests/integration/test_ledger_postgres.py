"""The ledger in PostgreSQL: a real server that is stopped, started and taken away."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from ktrdr.errors import Conflict, InvalidSetting, KtrdrError, MissingExtra, NotFound, NotLeader, Unavailable
from ktrdr.operations.board import SqlBoard, WorkerState
from ktrdr.operations.events import Accepted, CancelRequested, Finished
from ktrdr.operations.fence import Fence
from ktrdr.operations.model import JobOutcome, OperationStatus
from ktrdr.operations.place import ledger_place
from ktrdr.operations.postgres import LedgerServer, driver
from ktrdr.operations.sql import SqlStore
from ktrdr.operations.store import Claim, OperationQuery
from ktrdr.operations.tables import SCHEMA, metadata
from ktrdr.testing.operations import LEASE, T0, a_model, a_submission, a_worker, assigned_to
from support.control_plane import settle
from support.postgres import Postgres

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _started_again(postgres: Postgres) -> Iterator[None]:
    """A test that fails while the server is stopped takes no other with it."""
    yield
    postgres.start()


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
async def store(postgres: Postgres, database: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(postgres.url(database))
    yield store
    await store.close()


def opened(url: str) -> LedgerServer:
    place = ledger_place(url)
    assert not hasattr(place, "exists")
    return LedgerServer(place)


def refusal(url: str, kind: type[KtrdrError] = InvalidSetting) -> str:
    with pytest.raises(kind) as caught:
        opened(url).close()
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


# --- several backends ---------------------------------------------------------------------------------------------


async def test_several_backends_submit_at_once_and_one_key_is_one_operation(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    other = SqlStore(postgres.url(database))
    try:
        for turn in range(30):
            both = [
                one.submit(
                    a_submission(f"op_{turn}_{who}", idempotency_key=f"key {turn}", spec=b"%d" % turn), T0
                )
                for who, one in enumerate((store, other))
            ]
            first, second = await asyncio.gather(*both)
            assert first == second
            with pytest.raises(Conflict):
                await other.submit(a_submission("op_x", idempotency_key=f"key {turn}", spec=b"else"), T0)
        assert (await other.page(OperationQuery())).total == 30
    finally:
        await other.close()


async def test_changes_of_one_operation_by_several_backends_happen_one_after_the_other(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    other = SqlStore(postgres.url(database))
    try:
        for turn in range(20):
            name = f"op_{turn}"
            await store.submit(a_submission(name), T0)
            changes = [store.apply(name, CancelRequested(), T0), other.apply(name, assigned_to(), T0)]
            cancelled, assigned = await asyncio.gather(*changes)
            assert cancelled.operation.status in (OperationStatus.CANCELLED, OperationStatus.CANCELLING)
            if cancelled.operation.status is OperationStatus.CANCELLED:
                assert assigned.outcome == "ignored"
            assert len((await store.get(name)).story) == len((await other.get(name)).story) == 3
    finally:
        await other.close()


async def test_changes_that_wait_for_each_other_crosswise_are_made_again(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    """Two transactions, each holding the row that the other wants: PostgreSQL ends one, and it is made again."""
    for name in ("op_a", "op_b"):
        await store.submit(a_submission(name), T0)
    with postgres.connect(database) as another:
        another.execute("UPDATE operations SET priority = 7 WHERE operation_id = 'op_b'")

        def both(connection: Connection) -> None:
            for name in ("op_a", "op_b"):
                connection.execute(text(f"UPDATE operations SET priority = 1 WHERE operation_id = '{name}'"))

        change = asyncio.create_task(store.write(both))
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await settle(lambda: asyncio.to_thread(postgres.execute, database, waiting), bool)
        another.execute(
            "SET deadlock_timeout = '60s'"
        )  # so that the store's session is the one that is ended
        await asyncio.to_thread(
            another.execute, "UPDATE operations SET priority = 7 WHERE operation_id = 'op_a'"
        )
        another.commit()
        await change
    assert {(await store.get(name)).priority for name in ("op_a", "op_b")} == {1}


async def test_opening_at_the_same_moment_makes_the_tables_once(postgres: Postgres) -> None:
    url = postgres.url(postgres.database())
    stores = await asyncio.gather(*(asyncio.to_thread(SqlStore, url) for _ in range(3)))
    for store in stores:
        await store.close()


# --- the fence ----------------------------------------------------------------------------------------------------


def term(postgres: Postgres, database: str) -> int:
    """Another backend's term begins."""
    found = postgres.execute(
        database,
        "INSERT INTO cluster (id, epoch) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET epoch = cluster.epoch + 1 RETURNING epoch",
    )
    return int(str(found[0][0]))


async def test_who_leads_no_more_writes_nothing_that_is_the_leaders(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    store.fence = fence = Fence()
    await store.submit(a_submission("op_a"), T0)
    worker = a_worker()
    leaders = (
        lambda: store.apply("op_a", assigned_to(), T0),
        lambda: store.save_worker(worker),
        lambda: store.delete_worker(worker.worker_id),
        lambda: SqlBoard(store).post([WorkerState(worker.worker_id)]),
    )
    fence.epoch = term(postgres, database)
    await store.save_worker(worker)
    for lead in (None, fence.epoch):  # one that follows, and one that does not know yet that it does
        fence.epoch = lead
        if lead is not None:
            term(postgres, database)
        for change in leaders:
            with pytest.raises(NotLeader):
                await change()
    assert (await store.get("op_a")).attempt == 0
    assert await store.workers() == (worker,)
    assert (await store.submit(a_submission("op_b"), T0)).operation_id == "op_b"
    cancelled = await store.apply("op_b", CancelRequested(), T0)
    assert cancelled.operation.status is OperationStatus.CANCELLED, "what any backend may do goes on"


async def test_a_term_begins_only_when_the_leaders_writes_of_the_one_before_are_done(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    store.fence = Fence()
    store.fence.epoch = term(postgres, database)
    await store.submit(a_submission("op_a"), T0)
    with postgres.connect(database) as another:  # holds the operation, so that the assignment is under way
        another.execute("SELECT 1 FROM operations WHERE operation_id = 'op_a' FOR UPDATE")
        change = asyncio.create_task(store.apply("op_a", assigned_to(), T0))
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await settle(lambda: asyncio.to_thread(postgres.execute, database, waiting), bool)
        beginning = asyncio.create_task(asyncio.to_thread(term, postgres, database))
        await settle(
            lambda: asyncio.to_thread(postgres.execute, database, waiting), lambda found: len(found) == 2
        )
        assert not beginning.done()
    assert (await change).operation.attempt == 1
    assert await beginning == store.fence.epoch + 1
    with pytest.raises(NotLeader, match="led in epoch 1; the ledger is in epoch 2"):
        await store.apply("op_a", assigned_to(), T0)


# --- the server goes away -----------------------------------------------------------------------------------------


async def test_calls_say_that_the_database_is_away_and_work_again_when_it_is_back(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    made = await store.submit(a_submission("op_a"), T0)
    postgres.stop()
    for _ in range(2):
        for call in (
            store.get("op_a"),
            store.page(OperationQuery()),
            store.submit(a_submission("op_b"), T0),
            store.apply("op_a", assigned_to(), T0),
        ):
            with pytest.raises(Unavailable) as caught:
                await call
            assert f"127.0.0.1:{postgres.port}/{database} does not answer" in str(caught.value)
            assert "connects again by itself" in str(caught.value)
            assert caught.value.retry_after_s
    postgres.start()
    assert await store.get("op_a") == made
    with pytest.raises(NotFound):
        await store.get("op_b")
    assert (await store.apply("op_a", assigned_to(), T0)).operation.attempt == 1
    assert (await store.submit(a_submission("op_b"), T0)).operation_id == "op_b"


async def test_nothing_acknowledged_is_lost_when_the_server_dies_under_load(
    postgres: Postgres, store: SqlStore
) -> None:
    acknowledged: dict[str, int] = {}
    refused: list[BaseException] = []

    async def client(number: int) -> None:
        for turn in range(10_000):
            name = f"op_{number}_{turn}"
            try:
                await store.submit(a_submission(name), T0)
                acknowledged[name] = 0
                acknowledged[name] = (await store.apply(name, assigned_to(), T0)).operation.attempt
            except Unavailable as error:
                refused.append(error)
                return

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    await settle(lambda: _enough(acknowledged), bool)
    await asyncio.to_thread(postgres.stop)
    await asyncio.gather(*clients)
    assert len(refused) == 8
    await asyncio.to_thread(postgres.start)
    for name, attempt in acknowledged.items():
        kept = await store.get(name)
        assert kept.attempt >= attempt, "the last change of each client may be there without its answer"


async def _enough(acknowledged: dict[str, int]) -> bool:
    return len(acknowledged) > 40


async def test_a_read_is_not_waited_for_for_ever(postgres: Postgres, database: str) -> None:
    store = SqlStore(postgres.url(database), patience_s=0.3)
    try:
        await store.submit(a_submission("op_a"), T0)
        with postgres.connect(database) as another:
            another.execute("LOCK TABLE operations IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Unavailable, match="did not answer within"):
                await store.get("op_a")
        assert (await store.get("op_a")).operation_id == "op_a"
    finally:
        await store.close()


async def test_a_session_that_the_server_ended_is_replaced(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    await store.submit(a_submission("op_a"), T0)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    postgres.execute(database, f"{others} AND pid <> pg_backend_pid()")
    assert (await store.get("op_a")).operation_id == "op_a"
    await store.submit(a_submission("op_b"), T0)


async def test_a_session_that_ends_in_the_middle_fails_its_whole_batch_and_nothing_of_it_stays(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    """The writer waits for a row while others gather behind it; then its session is ended."""
    await store.submit(a_submission("op_a"), T0)
    with postgres.connect(database) as another:
        another.execute("SELECT 1 FROM operations WHERE operation_id = 'op_a' FOR UPDATE")
        changes = [asyncio.create_task(store.apply("op_a", assigned_to(), T0))]
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        pids = await settle(lambda: asyncio.to_thread(postgres.execute, database, waiting), bool)
        changes += [asyncio.create_task(store.submit(a_submission(f"op_{n}"), T0)) for n in range(3)]
        postgres.execute(database, f"SELECT pg_terminate_backend({pids[0][0]})")
        outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert isinstance(outcomes[0], Unavailable)
    assert (await store.get("op_a")).status is OperationStatus.PENDING
    for n, outcome in enumerate(outcomes[1:]):  # those that came later were written by the next session
        if isinstance(outcome, Unavailable):
            with pytest.raises(NotFound):
                await store.get(f"op_{n}")
        else:
            assert await store.get(f"op_{n}") == outcome


async def test_a_change_waits_for_a_row_that_another_program_holds(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    """Row locks: what ``apply`` read is still true when it writes, whoever else works in the database."""
    await store.submit(a_submission("op_a"), T0)
    with postgres.connect(database) as another:
        another.execute("UPDATE operations SET priority = 7 WHERE operation_id = 'op_a'")
        change = asyncio.create_task(store.apply("op_a", assigned_to(), T0))
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await settle(lambda: asyncio.to_thread(postgres.execute, database, waiting), bool)
        assert not change.done()
    assert (await change).operation.priority == 7
    assert (await store.get("op_a")).priority == 7


async def test_a_change_that_the_server_refuses_harms_none_that_came_with_it(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    refusing = """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.operation_id = 'op_1' THEN RAISE 'planted'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refusing BEFORE INSERT ON operations FOR EACH ROW EXECUTE FUNCTION refuse()"""
    postgres.execute(database, refusing)
    for _ in range(2):  # the session is as good as before
        names = [f"op_{n}" for n in range(4)]
        outcomes = await asyncio.gather(
            *(store.submit(a_submission(name, idempotency_key=name), T0) for name in names),
            return_exceptions=True,
        )
        assert [isinstance(outcome, KtrdrError) for outcome in outcomes] == [False, True, False, False]
        assert "planted" in str(outcomes[1])
        assert sum((await store.counts()).values()) == 3
        assert (await store.page(OperationQuery())).total == 3


async def test_a_claim_passes_over_a_row_that_another_program_holds(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    for name in ("op_a", "op_b"):
        await store.submit(a_submission(name), T0)
    claims = [Claim(name, assigned_to()) for name in ("op_a", "op_b")]
    with postgres.connect(database) as another:
        another.execute("SELECT 1 FROM operations WHERE operation_id = 'op_a' FOR UPDATE")
        made = await store.claim(claims, T0)
    assert [None if t is None else t.operation.operation_id for t in made] == [None, "op_b"]
    [first, second] = await store.claim(claims, T0)
    assert first is not None
    assert second is None


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
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
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
        "from ktrdr.operations.sql import SqlStore\n"
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


async def test_text_that_postgresql_cannot_hold_does_no_harm(store: SqlStore) -> None:
    await store.submit(a_submission("op_a", idempotency_key="k" * 1000), T0)
    assignment = (await store.apply("op_a", assigned_to(), T0)).operation.assignment
    assert assignment is not None
    await store.apply("op_a", Accepted(assignment, T0 + LEASE), T0)
    outcome = JobOutcome(status=OperationStatus.FAILED, error="before\x00after")
    await store.apply("op_a", Finished(assignment, outcome), T0 + timedelta(seconds=1))
    assert (await store.get("op_a")).error == "before\N{REPLACEMENT CHARACTER}after"
    with pytest.raises(NotFound):
        await store.get("op\x00a")
    await store.save_model(a_model("m" * 300, strategy_name="s" * 300))
    assert [model.model_id for model in await store.models("s" * 300)] == ["m" * 300]


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
