"""A result is brought to the backend once it can be, and never lost on the way."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ktrdr.errors import NotFound
from ktrdr.protocol.messages import DeliverRequest, ReportRequest
from ktrdr.protocol.transports import Answer
from ktrdr.workers.backend_link import BackendLink
from ktrdr.workers.delivery import Courier
from ktrdr.workers.outbox import Outbox
from support.eventually import until

RESULT = DeliverRequest(operation_id="op", attempt=2, status="completed", artifacts={"result": "a" * 64})
TAKEN = Answer(200, {}, b'{"acknowledged": true, "stop": ["stray"]}')


class Backend:
    """Transport and uploads in one: ``answer`` is given to every report."""

    def __init__(self, answer: Answer = TAKEN) -> None:
        self.answer = answer
        self.reports: list[Any] = []
        self.uploaded: list[str] = []
        self.upload_error: Exception | None = None

    async def request(self, method: str, url: str, *, json: Any = None, **_: Any) -> Answer:
        self.reports.append(json)
        return self.answer

    async def close(self) -> None:
        """Nothing is held."""

    def upload(self, digest: str) -> None:
        if self.upload_error is not None:
            raise self.upload_error
        self.uploaded.append(digest)


class Office:
    """A courier with everything it tells others collected."""

    def __init__(
        self, folder: Path, backend: Backend, retry_s: float = 0.001, outbox: type[Outbox] = Outbox
    ) -> None:
        self.outbox = outbox(folder)
        self.done: list[str] = []
        self.unknown: list[bool] = []
        link = BackendLink(backend, ("http://a",), token=None, timeout_s=1.0, uploads=backend)
        self.courier = Courier(
            link,
            self.outbox,
            "w",
            report=lambda delivery: ReportRequest(instance_id="i", worker_status="idle", delivery=delivery),
            on_unknown=lambda: self.unknown.append(True),
            on_done=self.done.append,
            random=Random(1),
            first_retry_s=retry_s,
            longest_retry_s=retry_s,
        )


async def test_files_first_then_the_report(tmp_path: Path) -> None:
    backend = Backend()
    office = Office(tmp_path, backend)
    assert await office.courier.deliver(RESULT)
    assert backend.uploaded == ["a" * 64]
    assert backend.reports[0]["delivery"]["status"] == "completed"
    assert office.done == ["op:2"]
    assert office.outbox.entries() == []


async def test_what_is_not_taken_waits_and_is_brought_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend(Answer(503))
    office = Office(tmp_path, backend)
    assert not await office.courier.deliver(RESULT)
    assert not await office.courier.deliver(RESULT.model_copy(update={"operation_id": "other"}))
    assert len(office.outbox.entries()) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    task = asyncio.create_task(office.courier.run())
    await until(lambda: len(backend.reports) >= 6)
    backend.answer = TAKEN
    await until(lambda: len(office.done) == 2)
    assert office.outbox.entries() == []
    backend.answer = Answer(503)
    assert not await office.courier.deliver(RESULT)
    backend.answer = TAKEN
    await until(lambda: len(office.done) == 3)
    task.cancel()


async def test_a_sign_of_life_shortens_the_wait(tmp_path: Path) -> None:
    backend = Backend(Answer(503))
    office = Office(tmp_path, backend, retry_s=3600.0)
    await office.courier.deliver(RESULT)
    task = asyncio.create_task(office.courier.run())
    backend.answer = TAKEN
    async with asyncio.timeout(20):
        while not office.done:
            office.courier.nudge()
            await asyncio.sleep(0.001)
    task.cancel()


async def test_an_answer_that_does_not_acknowledge_keeps_the_entry(tmp_path: Path) -> None:
    office = Office(tmp_path, Backend(Answer(200, {}, b'{"acknowledged": false}')))
    assert not await office.courier.deliver(RESULT)
    assert len(office.outbox.entries()) == 1


async def test_an_unknown_worker_registers_again(tmp_path: Path) -> None:
    office = Office(tmp_path, Backend(Answer(404, {}, b'{"detail": "no such worker"}')))
    assert not await office.courier.deliver(RESULT)
    assert office.unknown == [True]
    assert len(office.outbox.entries()) == 1


async def test_a_refusal_for_good_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    office = Office(tmp_path, Backend(Answer(422, {}, b'{"detail": "what is this?"}')))
    assert await office.courier.deliver(RESULT)
    assert (office.outbox.entries(), office.done) == ([], ["op:2"])
    kept = DeliverRequest.model_validate_json((tmp_path / "op.2.refused").read_bytes())
    assert kept == RESULT, "the file is the refused result, not the shorter one that was tried next"
    assert "what is this?" in caplog.text


class Choosy(Backend):
    """Takes no summaries."""

    async def request(self, method: str, url: str, *, json: Any = None, **more: Any) -> Answer:
        await super().request(method, url, json=json, **more)
        return Answer(422, {}, b'{"detail": "no sums"}') if json["delivery"].get("summary") else TAKEN


@pytest.mark.parametrize(
    ("status", "told"), [("completed", "failed"), ("released", "released"), ("cancelled", "cancelled")]
)
async def test_the_backend_hears_of_an_end_whose_result_it_refuses(
    tmp_path: Path, status: str, told: str
) -> None:
    backend = Choosy()
    office = Office(tmp_path, backend)
    delivery = RESULT.model_copy(update={"status": status, "summary": {"x": 1}})
    assert await office.courier.deliver(delivery)
    last = backend.reports[-1]["delivery"]
    assert (last["status"], last["attempt"], "no sums" in last["error"]) == (told, 2, True)
    assert (office.outbox.entries(), office.done) == ([], ["op:2"])
    assert (tmp_path / "op.2.refused").exists()


async def test_a_letter_with_the_outbox_is_not_longer_than_the_backend_reads(tmp_path: Path) -> None:
    office = Office(tmp_path, Backend())
    for number in range(8):
        office.outbox.add(
            RESULT.model_copy(update={"attempt": number, "summary": {"x": "y" * 100_000}, "artifacts": {}})
        )
    assert len(await office.courier.uploaded_entries()) == 5
    assert len(office.outbox.entries()) == 8


class Fragile(Outbox):
    """Breaks once."""

    broken = False

    def entries(self) -> list[DeliverRequest]:
        if self.broken:
            self.broken = False
            raise RuntimeError("a bug")
        return super().entries()


async def test_no_failure_ends_the_deliveries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = Backend(Answer(503))
    office = Office(tmp_path, backend, outbox=Fragile)
    await office.courier.deliver(RESULT)
    assert isinstance(office.outbox, Fragile)
    task = asyncio.create_task(office.courier.run())
    await until(lambda: len(backend.reports) >= 3)
    office.outbox.broken = True
    await until(lambda: "unexpectedly" in caplog.text)
    backend.answer = TAKEN
    await until(lambda: office.done)
    task.cancel()


async def test_a_result_whose_files_are_lost_is_a_failure(tmp_path: Path) -> None:
    backend = Backend()
    backend.upload_error = NotFound("artifact", "a" * 64)
    assert await Office(tmp_path, backend).courier.deliver(RESULT)
    assert backend.reports[0]["delivery"]["status"] == "failed"
    assert "lost a file" in backend.reports[0]["delivery"]["error"]


async def test_only_entries_with_their_files_up_go_with_a_registration(tmp_path: Path) -> None:
    backend = Backend()
    office = Office(tmp_path, backend)
    office.outbox.add(RESULT)
    assert await office.courier.uploaded_entries() == [RESULT]
    backend.upload_error = NotFound("artifact", "a" * 64)
    assert await office.courier.uploaded_entries() == []
    office.courier.acknowledge(["op:2", "never:1"])
    assert office.outbox.entries() == []
