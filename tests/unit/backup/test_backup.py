"""Backups between ledgers of both kinds: all that matters comes back, and nothing that is there is touched."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, text

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.wiring import Backend
from ktrdr.backup.create import create_backup
from ktrdr.backup.ledger import read_snapshot
from ktrdr.backup.restore import restore_backup, verify_backup
from ktrdr.backup.unfinished import alone, hold
from ktrdr.errors import Conflict, InvalidInput, InvalidSetting, KtrdrError, NotFound, Unavailable
from ktrdr.market.store import MarketStore
from ktrdr.operations.events import Finished
from ktrdr.operations.model import OperationStatus
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.sql.place import ledger_place
from ktrdr.operations.sql.schema import migrate
from ktrdr.operations.sql.tables import SCHEMA
from ktrdr.operations.store import OperationQuery
from ktrdr.testing.operations import T0, a_submission, an_outcome
from ktrdr.timeframe import Timeframe
from support.archives import rewritten, seal
from support.homes import contents, files, fill, sample
from support.postgres import Postgres

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
Url = Callable[[], str]


@pytest.fixture
def sqlite_url() -> Callable[[], str | None]:
    return lambda: None


@pytest.fixture
def postgres_url(postgres: Postgres) -> Url:
    return lambda: postgres.url(postgres.database())


@pytest.mark.parametrize(
    ("source", "target"),
    [("sqlite", "sqlite"), ("sqlite", "postgres"), ("postgres", "sqlite"), ("postgres", "postgres")],
)
async def test_everything_comes_back(
    source: str, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    here = request.getfixturevalue(f"{source}_url")()
    there = request.getfixturevalue(f"{target}_url")()
    old, new = tmp_path / "old", tmp_path / "new"
    artifacts = await fill(old, here)
    suffix = ".tar.gz" if source == target else ".tar"
    path, manifest = create_backup(old, here, tmp_path / f"b{suffix}", version="1", now=NOW)
    assert path.name == f"b{suffix}"
    assert (manifest.database, manifest.schema) == ("postgresql" if here else "sqlite", SCHEMA)
    assert manifest.missing == ()
    assert manifest.tables["operations"] == 3
    assert verify_backup(path) == manifest
    assert restore_backup(path, new, there) == manifest
    assert await contents(new, there) == await contents(old, here)
    restored = FileArtifactStore(new / "artifacts")
    kept = set(artifacts.digests()) - {artifacts.put(b"nobody needs this")}
    assert set(restored.digests()) == kept
    assert all(restored.intact(digest) for digest in kept)
    loaded = MarketStore(new / "market", restored).load("SYNTH", Timeframe.H1)
    assert loaded.digest() == sample().digest()
    assert (new / "job-logs" / "done" / "000001.log").read_bytes() == b"a line\n"
    assert (new / "secret").stat().st_mode & 0o777 == 0o600
    assert {p.name for p in new.iterdir()} - {"ktrdr.db.lock"} == {
        *("artifacts", "market", "job-logs", "secret"),
        *(() if there else ("ktrdr.db",)),
    }
    assert {name.split("/")[0] for name in files(tmp_path)} == {path.name, "new", "old"}


async def test_work_goes_on_after_a_restore(tmp_path: Path) -> None:
    """What ran is still live, with its attempt; the worker that delivers it is believed."""
    await fill(tmp_path / "old", None)
    path, _ = create_backup(tmp_path / "old", None, tmp_path, version="1", now=NOW)
    assert path.name == "ktrdr-backup-20260501T120000Z.tar"
    restore_backup(path, tmp_path / "new", None)
    store = SqlStore(tmp_path / "new" / "ktrdr.db")
    (live,) = await store.live()
    assert live.operation_id == "running"
    assert live.assignment is not None
    done = await store.apply("running", Finished(live.assignment, an_outcome()), T0)
    assert done.operation.status is OperationStatus.COMPLETED
    await store.submit(a_submission("next"), T0)
    await store.close()


async def test_an_open_ledger_is_read_as_of_one_moment(tmp_path: Path) -> None:
    """The owner's lock and the write-ahead log are no hindrance, and what is not committed is not seen."""
    home = tmp_path / "home"
    store = SqlStore(home / "ktrdr.db")
    await store.submit(a_submission("op_1"), T0)
    path, manifest = create_backup(home, None, tmp_path / "a.tar", version="1", now=NOW)
    assert manifest.tables["operations"] == 1
    await store.submit(a_submission("op_2"), T0)
    assert create_backup(home, None, tmp_path / "b.tar", version="1", now=NOW)[1].tables["operations"] == 2
    await store.close()
    before = files(home)
    create_backup(home, None, tmp_path / "c.tar", version="1", now=NOW)
    assert files(home) == before, "a ledger at rest is left as it lies"
    restore_backup(path, tmp_path / "new", None)
    again = SqlStore(tmp_path / "new" / "ktrdr.db")
    assert (await again.page(OperationQuery())).total == 1
    await again.close()


async def test_a_postgres_ledger_is_read_in_one_transaction(postgres: Postgres, tmp_path: Path) -> None:
    database = postgres.database()
    store = SqlStore(postgres.url(database))
    await store.submit(a_submission("op_1"), T0)
    with read_snapshot(ledger_place(postgres.url(database)), tmp_path) as connection:
        count = text("SELECT count(*) FROM operations")
        assert connection.scalar(count) == 1
        await store.submit(a_submission("op_2"), T0)
        assert connection.scalar(count) == 1
    await store.close()


async def test_a_ledger_of_an_earlier_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    engine = create_engine(f"sqlite:///{home / 'ktrdr.db'}", poolclass=NullPool)
    with engine.begin() as connection:
        migrate(connection, "old", to="0001")
        connection.execute(text("INSERT INTO specs VALUES ('d', :c)"), {"c": b"\x00\xff"})
    path, manifest = create_backup(home, None, tmp_path / "b.tar", version="1", now=NOW)
    assert manifest.schema == "0001"
    restore_backup(path, tmp_path / "new", None)
    store = SqlStore(tmp_path / "new" / "ktrdr.db")
    assert await store.spec("d") == b"\x00\xff"
    assert await store.paused() == {}
    await store.close()


async def test_missing_and_damaged_artifacts_are_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    artifacts = await fill(home, None)
    result, weights = artifacts.put(b"a result"), artifacts.put(b"weights")
    artifacts.delete(result)
    artifacts.location(weights).write_bytes(b"w3ights")
    path, manifest = create_backup(home, None, tmp_path / "b.tar", version="1", now=NOW)
    assert manifest.missing == tuple(sorted([result, weights]))
    restore_backup(path, tmp_path / "new", None)
    assert not FileArtifactStore(tmp_path / "new" / "artifacts").has(weights)


@pytest.mark.parametrize("name", ["b.tar", "b.tgz"])
async def test_a_backup_is_readable_by_its_owner_only(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    await fill(home, None)
    before = os.umask(0)
    try:
        path, _ = create_backup(home, None, tmp_path / name, version="1", now=NOW)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


# --- where it may go --------------------------------------------------------------------------------------------------


def test_a_home_in_use_is_left_alone(whole: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "notes").write_text("mine")
    with pytest.raises(Conflict, match="not empty"):
        restore_backup(whole, home, None)
    assert files(home) == {"notes": b"mine"}
    elsewhere = tmp_path / "x.db"
    elsewhere.touch()
    with pytest.raises(Conflict, match="exists"):
        restore_backup(whole, tmp_path / "new", f"sqlite:///{elsewhere}")


def test_a_database_in_use_is_left_alone(
    whole: Path, tmp_path: Path, nowhere: Path, postgres: Postgres
) -> None:
    database = postgres.database()
    postgres.execute(database, "CREATE TABLE mine (x int)")
    with pytest.raises(Conflict, match="mine"):
        restore_backup(whole, nowhere, postgres.url(database))
    with pytest.raises(Unavailable, match="does not answer"):
        restore_backup(whole, nowhere, postgres.url("absent"))


def test_a_restore_that_was_killed_can_be_repeated(whole: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".restoring" / "home").mkdir(parents=True)
    (home / ".ktrdr.db.restoring").touch()
    restore_backup(whole, home, None)
    assert (home / "ktrdr.db").is_file()
    assert [name for name in files(home) if name.startswith(".")] == []


def test_a_home_that_is_half_restored_is_no_home_yet(whole: Path, tmp_path: Path) -> None:
    """A backend made an empty ledger in it, and its garbage would have gone after a day."""
    home = tmp_path / "home"
    (home / ".restoring" / "home").mkdir(parents=True)
    (home / "artifacts").mkdir()
    with pytest.raises(InvalidSetting, match="did not come to its end"):
        Backend(BackendConfig(home=home))
    with pytest.raises(
        Conflict, match=r"not empty \(artifacts\)\. A restore that did not come to its end left"
    ):
        restore_backup(whole, home, None)
    with pytest.raises(InvalidSetting):  # still
        Backend(BackendConfig(home=home))


def test_two_restores_do_not_share_a_home(whole: Path, tmp_path: Path) -> None:
    """The second one removed what the first one was unpacking."""
    home = tmp_path / "home"
    home.mkdir()
    with alone(home):
        (home / ".restoring").mkdir()
        (home / ".restoring" / "mine").touch()
        with pytest.raises(Conflict, match="is under way"):
            restore_backup(whole, home, None)
        assert (home / ".restoring" / "mine").exists()
    assert restore_backup(whole, home, None).tables["workers"] == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_restore_that_fails_leaves_nothing(
    whole: Path, tmp_path: Path, nowhere: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Rows that no ledger takes: the archive is whole, the database refuses."""

    def double(members: list[tuple[str, bytes]]) -> None:
        index = next(i for i, (name, _) in enumerate(members) if name == "ledger/workers.jsonl")
        name, content = members[index]
        members[index] = (name, content + content.splitlines(keepends=True)[1])
        seal(members, member=(name, hashlib.sha256(members[index][1]).hexdigest()))

    path = rewritten(whole, tmp_path / "t.tar", double)
    database = request.getfixturevalue(f"{kind}_url")()
    with pytest.raises(KtrdrError, match="did not take the ledger"):
        restore_backup(path, nowhere, database)
    if database:
        assert restore_backup(whole, tmp_path / "other", database).tables["workers"] == 1


@pytest.mark.parametrize("name", ["there", "absent/b.tar", "home/b.tar", "backups", "b.zip", "b.gz"])
async def test_where_no_backup_can_be_written(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    await fill(home, None)
    (tmp_path / "there").write_text("mine")
    before = files(tmp_path)
    with pytest.raises(InvalidInput):
        create_backup(home, None, tmp_path / name, version="1", now=NOW)
    assert files(tmp_path) == before


def test_nothing_to_back_up(tmp_path: Path, postgres: Postgres) -> None:
    for database in (None, postgres.url(postgres.database())):
        with pytest.raises(NotFound, match="No ledger"):
            create_backup(tmp_path / "home", database, tmp_path / "b.tar", version="1", now=NOW)
    with pytest.raises(Unavailable):
        create_backup(tmp_path / "home", postgres.url("absent"), tmp_path / "b.tar", version="1", now=NOW)
    assert list(tmp_path.iterdir()) == []


async def test_the_next_backup_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Hidden files as large as a backup: a timer that kills it each night filled the disk with them."""
    await fill(tmp_path / "home", None)
    folder = tmp_path / "backups"
    for name in (".b.tar.7.ktrdr-part.rows", ".c.tar.8.ktrdr-part.rows", ".d.tar.9.ktrdr-part.rows"):
        (folder / name).mkdir(parents=True)
    for name in (".b.tar.7.ktrdr-part", ".d.tar.9.ktrdr-part", ".mine.7.part", "mine.ktrdr-part"):
        (folder / name).touch()
    with (folder / ".d.tar.9.ktrdr-part").open("ab") as running:
        assert hold(running)
        create_backup(tmp_path / "home", None, folder / "e.tar", version="1", now=NOW)
        kept = {".d.tar.9.ktrdr-part", ".d.tar.9.ktrdr-part.rows", ".mine.7.part", "mine.ktrdr-part", "e.tar"}
        assert {entry.name for entry in folder.iterdir()} == kept


async def test_a_backup_that_fails_leaves_no_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await fill(home, None)
    shutil.rmtree(home / "market")
    os.mkfifo(home / "market")  # left out; and a folder that cannot be read:
    (home / "ktrdr.db").write_bytes(b"SQLite format 3\x00" + bytes(5_000))
    with pytest.raises(KtrdrError):
        create_backup(home, None, tmp_path / "b.tar", version="1", now=NOW)
    assert {name.split("/")[0] for name in files(tmp_path)} == {"home"}
