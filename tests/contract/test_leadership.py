"""Every election keeps the laws of Leadership."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ktrdr.operations.sql.election import PostgresLeadership
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.testing.leadership_contract import Candidates, LeadershipContract
from ktrdr.testing.memory_election import MemoryElection
from support.postgres import Postgres


class TestMemoryLeadership(LeadershipContract):
    @pytest.fixture
    def candidates(self) -> Candidates:
        return MemoryElection().candidate


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return postgres.database()


class TestPostgresLeadership(LeadershipContract):
    @pytest.fixture
    async def candidates(self, postgres: Postgres, database: str) -> AsyncIterator[Candidates]:
        store = SqlStore(postgres.url(database))
        place = store.database
        assert place is not None
        yield lambda name: PostgresLeadership(place, name, lease_s=60.0, tell=store.tell)
        await store.close()
