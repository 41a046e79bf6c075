"""Submissions beyond what the backend can record in a moment are refused at once; all else passes."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI, Request

from ktrdr.backend import problems
from ktrdr.backend.submission.turnstile import Turnstile
from ktrdr.protocol.transports import Answer, AsgiTransport

URL = "http://127.0.0.1:8000"
START = "/api/v1/trainings/start"


class Gate:
    """A backend whose submissions end when ``open`` is called; two at once, three in line."""

    def __init__(self) -> None:
        self.now, self.refused = 0.0, 0
        self.inside = list[asyncio.Event]()
        self.app = FastAPI()
        problems.install(self.app)
        self.app.add_middleware(
            Turnstile, refused=self._count, at_once=2, line=3, longest_wait_s=1.0, clock=lambda: self.now
        )
        for path in (START, "/api/v1/operations/x/retry", "/api/v1/operations/x/cancel"):
            self.app.add_api_route(path, self._record, methods=["POST", "GET"])
        self._transport = AsgiTransport({URL: self.app})

    def _count(self) -> None:
        self.refused += 1

    async def _record(self, request: Request) -> str:
        done = asyncio.Event()
        self.inside.append(done)
        await done.wait()
        return (await request.body()).decode()

    def ask(self, path: str = START, method: str = "POST") -> asyncio.Task[Answer]:
        request = self._transport.request(method, f"{URL}{path}", json={"a": 1}, timeout_s=30.0)
        return asyncio.create_task(request)

    async def open(self) -> None:
        """Let the one go that came first."""
        self.inside.pop(0).set()
        await settle()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_a_burst_is_taken_as_far_as_the_line_reaches() -> None:
    gate = Gate()
    asking = [gate.ask() for _ in range(7)]
    await settle()
    assert [task.done() for task in asking] == [False] * 5 + [True] * 2
    refused = asking[-1].result()
    assert (refused.status, refused.headers["retry-after"], gate.refused) == (503, "1", 2)
    assert refused.json()["type"] == "urn:ktrdr:problem:overloaded"
    assert "Nothing of this one was recorded" in refused.json()["detail"]
    assert len(gate.inside) == 2
    for _ in range(5):
        await gate.open()
    assert [task.result().json() for task in asking[:5]] == ['{"a": 1}'] * 5


async def test_nobody_joins_a_line_that_does_not_move_and_everybody_one_that_does_again() -> None:
    gate = Gate()
    asking = [gate.ask() for _ in range(3)]
    await settle()
    gate.now = 1.1
    refused = gate.ask()
    await settle()
    assert (refused.done(), gate.refused) == (True, 1)
    await gate.open()  # the one in line is in
    asking.append(gate.ask())
    await settle()
    assert (asking[-1].done(), gate.refused) == (False, 1)
    for _ in range(3):
        await gate.open()
    assert {task.result().status for task in asking} == {200}


@pytest.mark.parametrize(
    ("path", "method"), [("/api/v1/operations/x/cancel", "POST"), (START, "GET"), ("/api/v1/none", "POST")]
)
async def test_nothing_else_is_refused(path: str, method: str) -> None:
    gate = Gate()
    asking = [gate.ask() for _ in range(6)]
    await settle()
    other = gate.ask(path, method)
    await settle()
    if path.endswith("none"):
        assert other.result().status == 404
        return
    assert len(gate.inside) == 3
    gate.inside.pop().set()
    assert (await other).status == 200
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_retries_are_submissions_too_and_who_goes_away_leaves_his_place() -> None:
    gate = Gate()
    asking = [gate.ask("/api/v1/operations/x/retry") for _ in range(5)]
    await settle()
    for gone in (asking[0], asking[2], asking[3]):  # one inside, two in line
        gone.cancel()
    await settle()
    assert len(gate.inside) == 3, "the last one in line took the place of the first"
    asking += [gate.ask() for _ in range(4)]
    await settle()
    assert gate.refused == 1
    asking[4].cancel()
    await gate.open()  # of the one that has gone
    for _ in range(5):
        await gate.open()
    assert [task.result().status for task in asking if not task.cancelled()] == [200] * 4 + [503]


async def test_whoever_is_let_in_and_leaves_in_one_moment_gives_the_place_on() -> None:
    gate = Gate()
    asking = [gate.ask() for _ in range(4)]
    await settle()
    asking[0].add_done_callback(lambda _: asking[2].cancel())
    for _ in range(3):
        await gate.open()
    while gate.inside:
        await gate.open()
    assert [task.cancelled() or task.result().status for task in asking] == [200, 200, True, 200]


async def test_who_has_not_sent_all_of_it_holds_no_place() -> None:
    gate = Gate()
    never = asyncio.Event()

    async def receive() -> dict[str, object]:
        await never.wait()
        raise AssertionError

    async def send(message: object) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": START, "headers": [], "query_string": b""}
    slow = [asyncio.create_task(gate.app(scope, receive, send)) for _ in range(5)]  # type: ignore[arg-type]
    await settle()
    asking = [gate.ask() for _ in range(2)]
    await settle()
    assert len(gate.inside) == 2
    for _ in range(2):
        await gate.open()
    assert [task.result().status for task in asking] == [200, 200]
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
