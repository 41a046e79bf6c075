"""Registration never gives up, and happens again when the backend forgets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from ktrdr.clock import SystemClock
from ktrdr.errors import InvalidInput, NotAuthorised, NotFound, ServerUnreachable, Unavailable
from ktrdr.protocol.messages import DeliverRequest, RegisterRequest, RegisterResponse, ReportRequest
from ktrdr.protocol.transports import Answer
from ktrdr.workers.backend_link import BackendLink
from ktrdr.workers.registration import Registration
from support.eventually import until

WELCOME = b'{"worker_id": "w", "worker_type": "backtesting", "status": "available", "message": "hello"}'


class Script:
    """A transport that answers from a list, the last entry for ever."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    async def request(
        self, method: str, url: str, *, json: Any = None, headers: Any = None, timeout_s: float = 10.0
    ) -> Answer:
        self.asked.append((url, headers))
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.answers.clear()


class NoUploads:
    def upload(self, digest: str) -> None:
        raise AssertionError(digest)


def link(script: Script, *urls: str, token: str | None = None) -> BackendLink:
    return BackendLink(script, urls or ("http://a",), token=token, timeout_s=1.0, uploads=NoUploads())


async def introduce() -> RegisterRequest:
    return RegisterRequest(worker_id="w", worker_type="backtesting", endpoint_url="http://w", instance_id="i")


def registration(
    script: Script, accepted: list[RegisterResponse], *, random: Random | None = None, **extra: float
) -> Registration:
    settings = {"silence_s": 30.0, "first_retry_s": 0.001, "longest_retry_s": 0.002} | extra
    return Registration(
        link(script),
        request=introduce,
        accept=accepted.append,
        clock=SystemClock(),
        random=random or Random(1),
        **settings,
    )


async def test_it_tries_for_ever_and_is_loud_five_times(caplog: pytest.LogCaptureFixture) -> None:
    down = ServerUnreachable("Cannot connect to http://a.")
    script = Script(*[down] * 8, Answer(503), RuntimeError("a bug"), Answer(200, {}, WELCOME))
    accepted: list[RegisterResponse] = []
    caplog.set_level(logging.DEBUG)
    running = registration(script, accepted)
    task = asyncio.create_task(running.run())
    await asyncio.wait_for(running.registered.wait(), 20)
    await until(lambda: accepted)
    task.cancel()
    assert len(script.asked) == 11
    loud = [r for r in caplog.records if r.levelno == logging.WARNING and "attempt" in r.message]
    assert [record.message.split("attempt ")[1][0] for record in loud] == list("12345")
    assert "KTRDR_API_URL" in loud[0].message
    assert sum("DEBUG only" in record.message for record in caplog.records) == 1


class Dice(Random):
    """Always the most, and what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return b


async def test_it_waits_longer_each_time_up_to_a_limit_and_never_in_step_with_others() -> None:
    down, dice = ServerUnreachable("Cannot connect to http://a."), Dice()
    script = Script(*[down] * 14, Answer(200, {}, WELCOME))
    running = registration(script, [], random=dice, first_retry_s=0.01, longest_retry_s=0.04)
    began = asyncio.get_running_loop().time()
    task = asyncio.create_task(running.run())
    async with asyncio.timeout(20):  # doubled without a limit the last wait alone would be 80 s
        await running.registered.wait()
    task.cancel()
    assert dice.asked == [(0.5, 1.0)] * 14
    assert asyncio.get_running_loop().time() - began > 0.01 + 0.02 + 12 * 0.04 - 0.05


@pytest.mark.parametrize(
    ("answer", "asked"),
    [(ServerUnreachable("Cannot connect to http://a."), True), (Answer(401), False), (Answer(422), False)],
)
async def test_whether_the_backend_runs_is_asked_only_if_it_did_not_answer(
    answer: Answer | Exception, asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    running = registration(Script(answer, Answer(200, {}, WELCOME)), [])
    task = asyncio.create_task(running.run())
    await asyncio.wait_for(running.registered.wait(), 20)
    task.cancel()
    (told,) = [record.message for record in caplog.records if "attempt 1" in record.message]
    assert ("Is the backend running?" in told) is asked
    assert "Trying again for as long as it takes." in told


async def test_a_good_start_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    running = registration(Script(Answer(200, {}, WELCOME)), [])
    task = asyncio.create_task(running.run())
    await asyncio.wait_for(running.registered.wait(), 20)
    task.cancel()
    assert max(record.levelno for record in caplog.records) == logging.INFO


async def test_silence_of_the_backend_means_to_register_again() -> None:
    script, accepted = Script(Answer(200, {}, WELCOME)), []
    task = asyncio.create_task(registration(script, accepted, silence_s=0.01).run())
    await until(lambda: len(accepted) >= 3)
    task.cancel()
    assert len(script.asked) >= 3


async def test_probes_postpone_it_but_not_for_ever() -> None:
    script, accepted = Script(Answer(200, {}, WELCOME)), []
    running = registration(script, accepted, silence_s=0.05)
    task = asyncio.create_task(running.run())
    await until(lambda: accepted)
    async with asyncio.timeout(20):  # ten silences are half a second
        while len(accepted) == 1:
            running.heard()
            await asyncio.sleep(0.005)
    task.cancel()
    assert len(script.asked) == len(accepted) == 2


async def test_on_request_it_registers_at_once() -> None:
    script, accepted = Script(Answer(200, {}, WELCOME)), []
    running = registration(script, accepted, silence_s=3600.0)
    task = asyncio.create_task(running.run())
    await until(lambda: accepted)
    running.again()
    await until(lambda: len(accepted) == 2)
    task.cancel()
    assert len(script.asked) == 2


async def test_the_next_backend_is_asked_and_kept() -> None:
    script = Script(ServerUnreachable("a is down"), Answer(200, {}, WELCOME))
    both = link(script, "http://a", "http://b", token="secret")
    await both.register(await introduce())
    await both.register(await introduce())
    assert [url.split("/api")[0] for url, _ in script.asked] == ["http://a", "http://b", "http://b"]
    assert script.asked[0][1] == {"authorization": "Bearer secret"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(401, {}, b'{"detail": "no token."}'), NotAuthorised),
        (Answer(404, {}, b'{"detail": "unknown worker"}'), NotFound),
        (Answer(422, {}, b'{"detail": "wrong endpoint"}'), InvalidInput),
        (Answer(409), InvalidInput),
        (Answer(429), Unavailable),
        (Answer(500, {}, b"<html>"), Unavailable),
        (Answer(200, {}, b'{"hello": "I am another program"}'), Unavailable),
        (ServerUnreachable("down"), ServerUnreachable),
    ],
)
async def test_answers_are_told_apart(answer: Answer | Exception, error: type[Exception]) -> None:
    delivery = DeliverRequest(operation_id="op", attempt=1, status="completed")
    report = ReportRequest(instance_id="i", worker_status="idle", delivery=delivery)
    with pytest.raises(error) as caught:
        await link(Script(answer)).report("w", report)
    if isinstance(answer, Answer) and b"detail" in answer.body:
        assert answer.json()["detail"] in str(caught.value)
