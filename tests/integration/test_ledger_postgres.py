"""The ledger in PostgreSQL: a real server that is stopped, started and taken away."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from ktrdr.errors import Conflict, KtrdrError, NotFound, NotLeader, Unavailable
from ktrdr.operations.events import Accepted, CancelRequested, Finished, Reported
from ktrdr.operations.model import JobOutcome, Operation, OperationStatus, OperationType
from ktrdr.operations.progress import Progress
from ktrdr.operations.sql.board import SqlBoard, WorkerState
from ktrdr.operations.sql.fence import Fence
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.store import Claim, OperationQuery
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
    held, crosswise = threading.Event(), threading.Event()

    def both(connection: Connection) -> None:
        connection.execute(text("UPDATE operations SET priority = 1 WHERE operation_id = 'op_a'"))
        held.set()
        assert crosswise.wait(60)
        connection.execute(text("UPDATE operations SET priority = 1 WHERE operation_id = 'op_b'"))

    with postgres.connect(database) as another:
        another.execute("UPDATE operations SET priority = 7 WHERE operation_id = 'op_b'")
        another.execute("SET deadlock_timeout = '300s'")
        change = asyncio.create_task(store.write(both))
        assert await asyncio.to_thread(held.wait, 60)
        other = asyncio.create_task(
            asyncio.to_thread(
                another.execute, "UPDATE operations SET priority = 7 WHERE operation_id = 'op_a'"
            )
        )
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await settle(lambda: asyncio.to_thread(postgres.execute, database, waiting), bool)
        # Whoever begins to wait last finds out, a second later, for the others wait already: that is the store's session.
        crosswise.set()
        await other
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


async def test_what_is_put_up_is_read_as_it_was(postgres: Postgres, database: str, store: SqlStore) -> None:
    store.fence = fence = Fence()
    fence.epoch = term(postgres, database)
    board = SqlBoard(store)
    ill = WorkerState("w1", 3, "It does not answer.", drains_itself=True, busy_with="op_a", seen=False)
    well = WorkerState("w2")
    await board.post([ill, well])
    assert await board.states() == {"w1": ill, "w2": well}
    await board.post([WorkerState("w1", busy_with="op_b")], gone=["w2"])
    assert await board.states() == {"w1": WorkerState("w1", busy_with="op_b")}


async def test_who_leads_no_more_writes_nothing_that_is_the_leaders(
    postgres: Postgres, database: str, store: SqlStore
) -> None:
    store.fence = fence = Fence()
    await store.submit(a_submission("op_a"), T0)
    await store.submit(a_submission("op_r"), T0)
    worker = a_worker()
    leaders = (
        lambda: store.apply("op_a", assigned_to(), T0),
        lambda: store.save_worker(worker),
        lambda: store.delete_worker(worker.worker_id),
        lambda: store.set_paused(list(OperationType), T0),
        lambda: SqlBoard(store).post([WorkerState(worker.worker_id)]),
    )
    fence.epoch = term(postgres, database)
    await store.save_worker(worker)
    running = (await store.apply("op_r", assigned_to(), T0)).operation.assignment
    assert running is not None
    await store.apply("op_r", Accepted(running, T0 + LEASE), T0)
    for lead in (None, fence.epoch):  # one that follows, and one that does not know yet that it does
        fence.epoch = lead
        if lead is not None:
            term(postgres, database)
        for change in leaders:
            with pytest.raises(NotLeader):
                await change()
    assert (await store.get("op_a")).attempt == 0
    assert await store.workers() == (worker,)
    assert await store.paused() == {}
    assert (await store.submit(a_submission("op_b"), T0)).operation_id == "op_b"
    cancelled = await store.apply("op_b", CancelRequested(), T0)
    assert cancelled.operation.status is OperationStatus.CANCELLED, "what any backend may do goes on"
    reported = (await store.apply("op_r", Reported(running, Progress(3, 10)), T0)).operation
    assert reported.progress == Progress(3, 10)
    assert reported.lease_expires_at == T0 + LEASE


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


async def test_a_read_is_not_waited_for_for_ever(postgres: Postgres, database: str, store: SqlStore) -> None:
    async def read() -> Operation | None:
        with contextlib.suppress(Unavailable):
            return await hasty.get("op_a")
        return None

    await store.submit(a_submission("op_a"), T0)
    hasty = SqlStore(postgres.url(database), patience_s=0.3)
    try:
        with postgres.connect(database) as another:
            another.execute("LOCK TABLE operations IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Unavailable, match="did not answer within"):
                await hasty.get("op_a")
        assert (await settle(read, bool)).operation_id == "op_a"
    finally:
        await hasty.close()


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
