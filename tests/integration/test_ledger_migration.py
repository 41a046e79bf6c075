"""A newer ktrdr migrates a ledger in PostgreSQL that an older one has open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ktrdr.errors import InvalidSetting, NotLeader
from ktrdr.operations.sql.admission import LEADER_LOCK
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.sql.tables import SCHEMA
from ktrdr.testing.operations import T0, a_submission
from support.newer import NEXT, newer_ktrdr
from support.postgres import Postgres
from support.processes import unmeasured

pytestmark = pytest.mark.integration
_OPEN = "import sys; from ktrdr.operations.sql.ledger import SqlStore; SqlStore(sys.argv[1]).close_now()"


def _open_with(program: Path, url: str) -> subprocess.CompletedProcess[str]:
    environment = unmeasured() | {"PYTHONPATH": str(program)}
    command = [sys.executable, "-c", _OPEN, url]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


async def test_an_older_backend_is_shut_out_once_a_newer_one_migrated_and_not_before(
    postgres: Postgres, tmp_path: Path
) -> None:
    database = postgres.database()
    url = postgres.url(database)
    store = SqlStore(url)
    await store.submit(a_submission("op_a"), T0)
    await store.get("op_a")

    broken = _open_with(newer_ktrdr(tmp_path / "broken", last="SELECT 1/0"), url)
    assert "division by zero" in broken.stderr
    assert postgres.execute(database, "SELECT version_num FROM alembic_version") == [(SCHEMA,)]
    await store.submit(a_submission("op_b"), T0)  # by a new session: the one before was ended
    assert [found.operation_id for found in await store.pending(T0, 9)] == ["op_a", "op_b"]

    assert _open_with(newer_ktrdr(tmp_path / "newer"), url).returncode == 0
    told = f"has schema {NEXT} since a newer ktrdr brought it there; this backend knows {SCHEMA}.*Upgrade it"
    for _ in range(2):
        with pytest.raises(NotLeader, match=told):
            await store.get("op_a")
    with pytest.raises(NotLeader, match=told):
        await store.submit(a_submission("op_c"), T0)
    await store.close()
    assert postgres.execute(database, "SELECT count(*) FROM operations") == [(2,)]
    with pytest.raises(
        InvalidSetting, match=rf"newer ktrdr \(schema {NEXT}; this one knows up to {SCHEMA}\)"
    ):
        SqlStore(url)


async def test_nobody_is_let_in_while_somebody_migrates(postgres: Postgres) -> None:
    database = postgres.database()
    store = SqlStore(postgres.url(database))
    with postgres.connect(database) as other:
        # as a migration has it; the store's own first session holds the schema, so the other one waits for its end
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
        )
        other.execute("SELECT pg_advisory_xact_lock(%s, 2)", LEADER_LOCK[:1])
        for _ in range(2):
            with pytest.raises(NotLeader, match="A newer ktrdr is bringing the ledger"):
                await store.get("op_a")
        other.rollback()
    assert (await store.counts()) == {}
    await store.close()
