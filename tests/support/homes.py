"""A KTRDR_HOME with something of everything in it, and what a ledger tells."""

from __future__ import annotations

import json
from pathlib import Path

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.market.store import MarketStore
from ktrdr.operations.events import Accepted, Finished, Progressed
from ktrdr.operations.model import OperationType
from ktrdr.operations.progress import Progress
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.store import OperationQuery
from ktrdr.testing.operations import LEASE, T0, a_model, a_submission, a_worker, an_outcome, assigned_to
from support.synthetic_bars import walk_bars

__all__ = ["contents", "files", "fill", "sample"]


async def fill(home: Path, database: str | None) -> FileArtifactStore:
    """A home with a dataset, a model, a job's log, and operations: completed, running, pending."""
    artifacts = FileArtifactStore(home / "artifacts")
    MarketStore(home / "market", artifacts).save(sample())
    weights = artifacts.put(b"weights")
    bundle = artifacts.put(json.dumps({"weights": weights}).encode())
    store = SqlStore(database or home / "ktrdr.db")
    spec = json.dumps({"kind": "training", "data": artifacts.put(b"named by a specification")}).encode()
    await store.submit(a_submission("done", spec=spec, idempotency_key="key \u2713"), T0)
    assignment = (await store.apply("done", assigned_to(), T0)).operation.assignment
    assert assignment is not None
    outcome = an_outcome(artifacts={"result": artifacts.put(b"a result"), "model": bundle})
    await store.apply("done", Finished(assignment, outcome), T0, model=a_model(bundle_digest=bundle))
    await store.submit(a_submission("running", priority=-3), T0)
    assignment = (await store.apply("running", assigned_to(), T0)).operation.assignment
    assert assignment is not None
    await store.apply("running", Accepted(assignment, T0 + LEASE), T0)
    await store.apply("running", Progressed(assignment, T0 + LEASE, Progress(1, 3, "one \u00fc")), T0)
    await store.submit(a_submission("waiting"), T0)
    await store.save_worker(a_worker(draining=True))
    await store.set_paused([OperationType.TRAINING], T0)
    await store.close()
    (home / "job-logs" / "done").mkdir(parents=True)
    (home / "job-logs" / "done" / "000001.log").write_bytes(b"a line\n")
    (home / "secret").write_text("token")
    (home / "secret").chmod(0o600)
    artifacts.put(b"nobody needs this")
    for name in ("uploads", "workers", "logs"):
        (home / name).mkdir()
        (home / name / "x").touch()
    return artifacts


def sample() -> Bars:
    """What is stored."""
    return walk_bars(200)


def files(home: Path) -> dict[str, bytes]:
    found = (path for path in sorted(home.rglob("*")) if path.is_file())
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in found}


async def contents(home: Path, database: str | None) -> object:
    """Everything that a store tells."""
    store = SqlStore(database or home / "ktrdr.db")
    try:
        page = await store.page(OperationQuery())
        specs = [await store.spec(o.spec_digest) for o in page.operations]
        return (
            page,
            specs,
            await store.workers(),
            await store.models(),
            await store.paused(),
            await store.counts(),
        )
    finally:
        await store.close()
