from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from ktrdr.errors import InvalidInput, Unavailable
from ktrdr.operations.sql.sqlite import LedgerFile
from ktrdr.operations.sql.writer import GroupWriter


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerFile]:
    file = LedgerFile(tmp_path / "ledger.db")
    yield file
    file.close()


@pytest.fixture
def writer(ledger: LedgerFile) -> Iterator[GroupWriter]:
    writer = GroupWriter(ledger.writer, ledger.translate)
    yield writer
    writer.close()


def add(digest: str):
    def work(connection: Connection) -> str:
        statement = text("INSERT INTO specs (digest, content) VALUES (:digest, x'00')")
        connection.execute(statement, {"digest": digest})
        return digest

    return work


def stored(ledger: LedgerFile) -> set[str]:
    with ledger.reader.begin() as connection:
        return set(connection.scalars(text("SELECT digest FROM specs")))


class Blocker:
    """Holds the writer inside one piece of work, so that others gather behind it."""

    def __init__(self, writer: GroupWriter) -> None:
        self._entered, self._go_on = threading.Event(), threading.Event()
        self.future: Future[None] = writer.run(self._work)
        assert self._entered.wait(10)

    def _work(self, connection: Connection) -> None:
        self._entered.set()
        assert self._go_on.wait(30)

    def release(self) -> None:
        self._go_on.set()
        self.future.result(30)


def test_what_waits_is_committed_together(writer: GroupWriter, ledger: LedgerFile) -> None:
    blocker = Blocker(writer)
    before = writer.transactions
    futures = [writer.run(add(f"d{n}")) for n in range(50)]
    assert stored(ledger) == set()
    blocker.release()
    assert [future.result(30) for future in futures] == [f"d{n}" for n in range(50)]
    assert writer.transactions == before + 2, "the blocker's transaction and one for all the others"
    assert len(stored(ledger)) == 50


def test_a_piece_that_fails_harms_no_other(writer: GroupWriter, ledger: LedgerFile) -> None:
    def half_done(connection: Connection) -> None:
        add("half")(connection)
        raise InvalidInput("no")

    blocker = Blocker(writer)
    good, bad, twice, last = (
        writer.run(add("a")),
        writer.run(half_done),
        writer.run(add("a")),
        writer.run(add("b")),
    )
    blocker.release()
    assert (good.result(30), last.result(30)) == ("a", "b")
    with pytest.raises(InvalidInput, match="no"):
        bad.result(30)
    assert "UNIQUE" in str(twice.exception(30))
    assert stored(ledger) == {"a", "b"}


def test_nothing_is_acknowledged_if_the_commit_fails(writer: GroupWriter, ledger: LedgerFile) -> None:
    """A deferred constraint is checked at commit: the whole batch learns of it."""

    def dangling(connection: Connection) -> None:
        connection.execute(text("PRAGMA defer_foreign_keys=ON"))
        columns = (
            "operation_id, operation_type, status, priority, created_us, spec_digest, requirements, attempt"
        )
        columns += ", failures, child_deaths, artifacts, story"
        values = "'op', 'backtesting', 'pending', 0, 0, 'nowhere', '{}', 0, 0, 0, '{}', '[]'"
        connection.execute(text(f"INSERT INTO operations ({columns}) VALUES ({values})"))

    blocker = Blocker(writer)
    innocent, guilty = writer.run(add("a")), writer.run(dangling)
    blocker.release()
    for future in (innocent, guilty):
        assert "FOREIGN KEY" in str(future.exception(30))
    assert stored(ledger) == set()
    assert writer.run(add("b")).result(30) == "b", "the writer goes on"


def test_work_that_was_given_up_before_its_turn_is_not_done(writer: GroupWriter, ledger: LedgerFile) -> None:
    blocker = Blocker(writer)
    given_up, kept = writer.run(add("a")), writer.run(add("b"))
    assert given_up.cancel()
    blocker.release()
    kept.result(30)
    assert stored(ledger) == {"b"}


def test_an_open_transaction_never_grows_without_bound(writer: GroupWriter) -> None:
    blocker = Blocker(writer)
    before = writer.transactions
    futures = [writer.run(add(f"d{n}")) for n in range(600)]
    blocker.release()
    for future in futures:
        future.result(60)
    assert writer.transactions == before + 1 + 3


def test_closing_finishes_what_was_handed_in(writer: GroupWriter, ledger: LedgerFile) -> None:
    blocker = Blocker(writer)
    future = writer.run(add("a"))
    blocker.release()
    writer.close()
    writer.close()
    assert future.result(0) == "a"
    with pytest.raises(Unavailable, match="closed"):
        writer.run(add("b"))
    assert stored(ledger) == {"a"}
