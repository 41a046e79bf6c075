"""Every ledger keeps the laws of OperationStore and AccessLedger."""

from __future__ import annotations

import sqlite3.dbapi2
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.store import OperationStore
from ktrdr.testing.access_contract import AccessLedgerContract
from ktrdr.testing.store_contract import OperationStoreContract
from support.postgres import Postgres


class TestMemoryStore(OperationStoreContract, AccessLedgerContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[OperationStore]:
        store = MemoryStore()
        yield store
        await store.close()


class TestSqlStore(OperationStoreContract, AccessLedgerContract):
    """Over the newest SQLite installed: the write-ahead log where it is safe."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[OperationStore]:
        store = SqlStore(tmp_path / "ledger.db")
        yield store
        await store.close()


class TestSqlStoreOnPythonsOwnSqlite(OperationStoreContract, AccessLedgerContract):
    """Over Python's own SQLite, which may be one that needs the rollback journal."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[OperationStore]:
        store = SqlStore(f"sqlite:///{tmp_path / 'ledger.db'}", module=sqlite3.dbapi2)
        yield store
        await store.close()


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return postgres.database()


class TestSqlStoreOnPostgres(OperationStoreContract, AccessLedgerContract):
    """Over a throw-away PostgreSQL server, one emptied database for all tests."""

    @pytest.fixture
    async def store(self, postgres: Postgres, database: str) -> AsyncIterator[OperationStore]:
        store = SqlStore(postgres.url(database))
        yield store
        await store.close()
        postgres.execute(database, "TRUNCATE specs, operations, tallies, workers, models, pauses, tokens")
