"""News of checkpoints reach the backend after their files, once, and never hold the job up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ktrdr.errors import CorruptArtifact, NotFound, ServerUnreachable
from ktrdr.protocol.messages import CheckpointNews, ReportRequest, ReportResponse
from ktrdr.protocol.transports import Answer
from ktrdr.workers.backend_link import BackendLink
from ktrdr.workers.checkpoint_post import CheckpointPost
from ktrdr.workers.runfolder import CheckpointLog
from support.eventually import until

A, B = "a" * 64, "b" * 64
TAKEN = Answer(200, {}, b'{"acknowledged": true, "stop": ["stray"]}')


class Backend:
    """Transport and uploads in one; what comes is noted in its order."""

    def __init__(self) -> None:
        self.answer = TAKEN
        self.came: list[Any] = []
        self.upload_error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def request(self, method: str, url: str, *, json: Any = None, **_: Any) -> Answer:
        await self.gate.wait()
        self.came.append({key: value for key, value in json["checkpoint"].items() if value not in ([], None)})
        return self.answer

    async def close(self) -> None:
        """Nothing is held."""

    def upload(self, digest: str) -> None:
        if self.upload_error is not None:
            error, self.upload_error = self.upload_error, None
            raise error
        self.came.append(f"file {digest[:1]}")


class Run:
    """As much of a run as the post looks at."""

    operation_id, attempt = "op", 3

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.told = CheckpointLog()

    def checkpoints(self) -> CheckpointLog:
        return CheckpointLog(list(self.told.saved), list(self.told.refused), list(self.told.notes))


class Office:
    """A post that follows one run."""

    def __init__(self) -> None:
        self.backend, self.run = Backend(), Run()
        self.unknown: list[bool] = []
        self.answers: list[ReportResponse] = []
        self.attempts: set[int] = set()
        link = BackendLink(self.backend, ("http://a",), token=None, timeout_s=1.0, uploads=self.backend)
        self.post = CheckpointPost(
            link,
            "w",
            report=lambda news: ReportRequest(instance_id="i", worker_status="busy", checkpoint=news),
            on_unknown=lambda: self.unknown.append(True),
            on_answer=self._answered,
            look_every_s=0.001,
        )
        self.task = asyncio.get_running_loop().create_task(self.post.follow(self.run))  # type: ignore[arg-type]

    def _answered(self, answer: ReportResponse, attempt: int) -> None:
        self.answers.append(answer)
        self.attempts.add(attempt)


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    made = Office()
    yield made
    if not made.run.ended.done():
        made.run.ended.set_result(None)
    with contextlib.suppress(asyncio.CancelledError):
        await made.task


def news(**fields: Any) -> dict[str, Any]:
    return {"operation_id": "op", "attempt": 3, **fields}


async def test_the_file_first_then_its_digest_and_each_once(office: Office) -> None:
    came, told = office.backend.came, office.run.told
    told.notes.append("goes on after 3")
    await until(lambda: came)
    told.saved[:] = [A]
    await until(lambda: len(came) == 3)
    told.saved[:] = [B, A]
    await until(lambda: len(came) == 5)
    await asyncio.sleep(0.02)
    assert came == [news(notes=["goes on after 3"]), "file a", news(digest=A), "file b", news(digest=B)]
    assert office.answers[0].stop == ["stray"]
    assert office.attempts == {3}


@pytest.mark.parametrize(
    "error", [ServerUnreachable("away"), CorruptArtifact("torn"), OSError("disk"), NotFound("artifact", A)]
)
async def test_what_could_not_be_brought_is_tried_again(office: Office, error: Exception) -> None:
    office.backend.upload_error = error
    office.run.told.saved[:] = [A]
    await until(lambda: len(office.backend.came) == 2)
    assert office.backend.came == ["file a", news(digest=A)]
    assert not office.unknown


async def test_a_backend_that_does_not_know_the_worker_is_registered_with_again(office: Office) -> None:
    office.backend.answer = Answer(404, {}, b"{}")
    office.run.told.notes.append("x")
    await until(lambda: office.unknown)
    office.backend.answer = TAKEN
    await until(lambda: office.answers)
    assert office.backend.came[-1] == news(notes=["x"])


async def test_what_was_told_last_comes_before_the_end(office: Office) -> None:
    """The last checkpoint itself goes with the delivery."""
    office.run.told.saved[:] = [A]
    office.run.told.refused.append(B)
    office.run.ended.set_result(None)
    await office.task
    assert office.backend.came == [news(refused=[B])]


async def test_a_backend_that_hangs_holds_nobody_up(office: Office) -> None:
    office.backend.gate.clear()
    office.run.told.notes.append("x")
    office.run.ended.set_result(None)
    await asyncio.wait_for(office.task, 30)
    assert not office.backend.came


async def test_many_and_long_lines_are_sent_in_pieces(office: Office) -> None:
    office.run.told.notes += [f"{n} " + "x" * 1_000 for n in range(20)]
    await until(lambda: len(office.answers) == 2)
    assert [len(message["notes"]) for message in office.backend.came] == [16, 4]
    assert all(len(note) == 500 for message in office.backend.came for note in message["notes"])
    CheckpointNews.model_validate(office.backend.came[0])
