"""An accepted submission survives kill -9: a real process, a real kill."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ktrdr.operations.model import OperationStatus
from ktrdr.operations.sql.ledger import SqlStore
from support.postgres import Postgres

pytestmark = pytest.mark.integration

WRITER = """
import asyncio, os, sys
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.testing.operations import T0, a_submission, assigned_to

async def one(store, number):
    name = f"op_{number}"
    operation = await store.submit(a_submission(name, spec=f'{{"n":{number % 7}}}'.encode()), T0)
    os.write(1, f"submitted {name} {operation.spec_digest}\\n".encode())
    if number % 2:
        await store.apply(name, assigned_to(), T0)
        os.write(1, f"assigned {name}\\n".encode())

async def main():
    store = SqlStore(sys.argv[1])
    for start in range(0, 1_000_000, 16):
        await asyncio.gather(*(one(store, number) for number in range(start, start + 16)))

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger of its own in either database."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(server.database())


def acknowledged_before_a_kill(where: str, acknowledgements: int) -> list[list[str]]:
    """Let a process write until it has acknowledged that many changes, kill it, return all that it acknowledged."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, where], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as acknowledged:
        try:
            lines = [acknowledged.readline() for _ in range(acknowledgements)]
        finally:
            process.send_signal(signal.SIGKILL)
        lines += acknowledged.readlines()  # said before the kill, still in the pipe
    assert process.wait() == -signal.SIGKILL
    return [line.decode().split() for line in lines if line.endswith(b"\n")]


@pytest.mark.parametrize("acknowledgements", [1, 300])
async def test_every_acknowledged_change_is_there_after_kill_9(where: str, acknowledgements: int) -> None:
    acknowledged = await asyncio.to_thread(acknowledged_before_a_kill, where, acknowledgements)
    assert len(acknowledged) >= acknowledgements
    store = SqlStore(where)
    try:
        for kind, name, *digest in acknowledged:
            operation = await store.get(name)
            if kind == "submitted":
                assert operation.spec_digest == digest[0]
                assert await store.spec(digest[0])
            else:
                assert (operation.status, operation.attempt) == (OperationStatus.ASSIGNED, 1)
    finally:
        await store.close()
