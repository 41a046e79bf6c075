"""A worker goes when the token does that it registered with: nobody would hear of the end of what it is given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Collection, Set
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.store import OperationStore
from ktrdr.testing.fake_worker import FakeWorker
from support.control_plane import ControlPlane, settle

ADMIN = {"authorization": "Bearer bootstrap-word"}


@pytest_asyncio.fixture(params=[None, SqlStore], ids=["memory", "sqlite"])
async def secured(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ControlPlane]:
    store: OperationStore | None = request.param and request.param(tmp_path / "ledger.db")
    plane = ControlPlane(tmp_path, store=store)
    plane.config = dataclasses.replace(plane.config, api_token="bootstrap-word", loopback_only=False)
    async with plane.running():
        yield plane


async def enrolled(plane: ControlPlane, name: str, **more: object) -> FakeWorker:
    """A worker that registered with a token of its own, which has its name."""
    made = await plane.ask("POST", "/api/v1/tokens", {"name": name, "scopes": ["worker"], **more}, **ADMIN)
    worker = plane.machine(name)
    shown = {"authorization": f"Bearer {json.loads(made.body)['token']}"}
    answer = await plane.ask("POST", "/api/v1/workers/register", worker.registration(), **shown)
    assert answer.status == 200, answer.body
    return worker


async def test_what_a_withdrawn_worker_runs_is_done_again_by_another(secured: ControlPlane) -> None:
    await enrolled(secured, "w1")
    name = await secured.submit()
    await secured.until(name, "running")
    other = await enrolled(secured, "w2")
    assert (await secured.ask("DELETE", "/api/v1/tokens/w1", **ADMIN)).status == 204
    there = await settle(
        lambda: secured.store.get(name), lambda o: o.worker_id == "w2" and o.status == "running"
    )
    assert there.attempt == 2
    assert name in other.jobs
    assert [worker.worker_id for worker in secured.backend.registry] == ["w2"]
    assert [record.worker_id for record in await secured.store.workers()] == ["w2"]


async def test_it_is_known_over_a_restart_and_found_out_by_a_round(secured: ControlPlane) -> None:
    await enrolled(secured, "w1")
    await secured.store.access.remove_token("w1")  # by another backend
    for record in await secured.store.workers():
        secured.backend.registry.put(record)  # as after a restart
    secured.clock.advance(3.0)
    await secured.backend.health.round()
    assert list(secured.backend.registry) == []


async def test_a_worker_whose_token_has_expired_goes_too(secured: ControlPlane) -> None:
    await enrolled(secured, "w1", expires_in_s=60)
    await secured.backend.health.round()
    assert len(secured.backend.registry) == 1
    secured.clock.advance(timedelta(seconds=61).total_seconds())
    await secured.backend.health.round()
    assert len(secured.backend.registry) == 0


async def test_tokens_of_the_settings_are_no_tokens_of_the_ledger(secured: ControlPlane) -> None:
    worker = secured.machine("w1")
    await secured.ask("POST", "/api/v1/workers/register", worker.registration(), **ADMIN)
    await secured.backend.health.round()
    assert (await secured.store.workers())[0].enrolled_by is None
    assert len(secured.backend.registry) == 1


async def test_a_worker_that_shows_another_token_meanwhile_stays(secured: ControlPlane) -> None:
    worker = await enrolled(secured, "w1")
    found = secured.backend.tokens.worthless

    async def slow(token_ids: Collection[str]) -> Set[str]:
        worthless = await found(token_ids)
        await secured.ask("POST", "/api/v1/workers/register", worker.registration(), **ADMIN)
        return worthless

    secured.backend.health.worthless = slow
    await secured.store.access.remove_token("w1")
    secured.clock.advance(3.0)
    await secured.backend.health.dismiss()
    assert [known.worker_id for known in secured.backend.registry] == ["w1"]
