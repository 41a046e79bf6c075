"""Changes that hang are answered in time and go on; everything else passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from ktrdr.backend import problems
from ktrdr.backend.patience import Patience
from ktrdr.errors import Conflict
from ktrdr.protocol.transports import Answer, AsgiTransport
from support.eventually import until
from support.virtual import in_virtual_time

URL = "http://127.0.0.1:8000"


class Hanging:
    """Routes that wait for ``gate``; ``done`` says which got to their end."""

    def __init__(self) -> None:
        self.gate, self.done = asyncio.Event(), list[str]()
        self.app = FastAPI()
        problems.install(self.app)
        self.app.add_middleware(Patience, patience_s=0.05)
        for path, methods in (
            ("/api/v1/operations/x/cancel", ["POST", "GET"]),
            ("/api/v1/data/import", ["POST"]),
        ):
            self.app.add_api_route(path, self._wait, methods=methods)
        self.app.add_api_route("/api/v1/operations/x/retry", self._refuse, methods=["POST"])
        self.app.add_api_route("/api/v1/operations/x/slowly", self._slowly, methods=["POST"])
        self._transport = AsgiTransport({URL: self.app})

    async def _wait(self) -> str:
        await self.gate.wait()
        self.done.append("waited")
        return "at last"

    async def _refuse(self) -> None:
        raise Conflict("It is not to be.")

    async def _slowly(self) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"begun, "
            await self.gate.wait()
            yield b"ended"

        return StreamingResponse(pieces())

    async def ask(self, method: str, path: str) -> Answer:
        return await self._transport.request(method, f"{URL}/api/v1{path}", timeout_s=30.0)


@in_virtual_time
async def test_a_change_that_hangs_is_answered_and_goes_on() -> None:
    hanging = Hanging()
    answer = await hanging.ask("POST", "/operations/x/cancel")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert "It may still happen" in answer.json()["detail"]
    assert hanging.done == []
    hanging.gate.set()
    await until(lambda: hanging.done == ["waited"])


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/operations/x/cancel"), ("POST", "/data/import"), ("POST", "/operations/x/slowly")],
)
@in_virtual_time
async def test_reads_imports_and_what_has_begun_to_answer_may_take_their_time(method: str, path: str) -> None:
    hanging = Hanging()
    asking = asyncio.create_task(hanging.ask(method, path))
    await asyncio.sleep(0.2)
    assert not asking.done()
    hanging.gate.set()
    assert (await asking).status == 200


@in_virtual_time
async def test_answers_in_time_pass_unchanged() -> None:
    hanging = Hanging()
    hanging.gate.set()
    assert (await hanging.ask("POST", "/operations/x/cancel")).json() == "at last"
    assert (await hanging.ask("POST", "/operations/x/retry")).status == 409


@in_virtual_time
async def test_a_request_that_is_broken_off_breaks_off_the_work() -> None:
    hanging = Hanging()
    asking = asyncio.create_task(hanging.ask("POST", "/operations/x/cancel"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    hanging.gate.set()
    await asyncio.sleep(0.1)
    assert hanging.done == []
