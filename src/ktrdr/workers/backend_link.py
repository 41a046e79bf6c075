"""The worker's way to its backend: register, report, upload; with several backends, whichever answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from ktrdr.errors import (
    Forbidden,
    InvalidInput,
    NotAuthorised,
    NotFound,
    NotLeader,
    ServerUnreachable,
    Unavailable,
)
from ktrdr.protocol.client import problem_detail
from ktrdr.protocol.messages import Problem, RegisterRequest, RegisterResponse, ReportRequest, ReportResponse
from ktrdr.protocol.transports import Answer, Transport
from ktrdr.protocol.worker_key import HEADER

__all__ = ["BackendLink", "Uploader"]

M = TypeVar("M", bound=BaseModel)


class Uploader(Protocol):
    """Brings a cached artifact to the backend; blocks, so it is called on a thread."""

    def upload(self, digest: str) -> None: ...


class BackendLink:
    """Talks to one backend of several and changes to the next when it does not answer or does not lead.

    Every method raises ServerUnreachable (nobody answers), Unavailable (5xx), NotAuthorised, NotFound (404: this
    worker is unknown there) or InvalidInput (another refusal), each with the backend's own words.
    """

    def __init__(
        self,
        transport: Transport,
        urls: tuple[str, ...],
        *,
        token: str | None,
        key: str | None = None,
        timeout_s: float,
        uploads: Uploader,
    ) -> None:
        self._transport, self._urls, self._timeout_s, self._uploads = transport, urls, timeout_s, uploads
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        if key is not None:
            self._headers[HEADER] = key
        self._at = 0

    @property
    def url(self) -> str:
        """The backend that is asked first."""
        return self._urls[self._at]

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Make this worker known; the backend probes it before it answers, so this may take a while."""
        answer = await self._post("/api/v1/workers/register", request, 2 * self._timeout_s)
        return _read(RegisterResponse, answer, self.url)

    async def report(self, worker_id: str, request: ReportRequest) -> ReportResponse:
        """Push a change of state, with a delivery."""
        answer = await self._post(f"/api/v1/workers/{worker_id}/report", request, self._timeout_s)
        return _read(ReportResponse, answer, self.url)

    async def upload(self, digests: Iterable[str]) -> None:
        """Bring artifacts to the backend, one after the other."""
        for digest in digests:
            await _on_daemon(partial(self._uploads.upload, digest), f"upload {digest[:8]}")

    async def close(self) -> None:
        await self._transport.close()

    async def _post(self, path: str, body: BaseModel, timeout_s: float) -> Answer:
        message = body.model_dump(mode="json", exclude_none=True)
        faults: list[str] = []
        told_so = False
        for _ in self._urls:
            try:
                answer = await self._transport.request(
                    "POST", self.url + path, json=message, headers=self._headers, timeout_s=timeout_s
                )
            except ServerUnreachable as error:
                faults.append(error.message)
                self._at = (self._at + 1) % len(self._urls)
            else:
                if not _follows(answer):
                    return _checked(answer, self.url)
                told_so = True
                faults.append(f"{self.url}: {problem_detail(answer)}")
                self._at = (self._at + 1) % len(self._urls)
        if told_so:
            raise Unavailable(" ".join(faults))
        raise ServerUnreachable(" ".join(faults))


async def _on_daemon(work: Callable[[], None], name: str) -> None:
    """``asyncio.to_thread`` for waits on the network: a stop of the process does not wait for such a thread."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:  # the thread's edge: it belongs to whoever waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    await done


def _follows(answer: Answer) -> bool:
    """Whether a backend says that another one leads."""
    if answer.status != 503:
        return False
    try:
        return Problem.model_validate_json(answer.body).type == f"urn:ktrdr:problem:{NotLeader.slug}"
    except ValidationError:
        return False


def _checked(answer: Answer, url: str) -> Answer:
    if answer.ok:
        return answer
    detail = f"{url} answered {answer.status}: {problem_detail(answer)}"
    if answer.status == 401:
        raise NotAuthorised(
            f"{detail} Set KTRDR_ENROLMENT_TOKEN to the backend's, or to a token of scope worker."
        )
    if answer.status == 403:
        raise Forbidden(detail)
    if answer.status == 404:
        raise NotFound("worker", "at the backend", hint=detail)
    if answer.status >= 500 or answer.status in (408, 429):
        raise Unavailable(detail)
    raise InvalidInput(detail)


def _read(model: type[M], answer: Answer, url: str) -> M:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        raise Unavailable(
            f"What answers at {url} is not a ktrdr backend of this version: {error.errors()[0]['msg']}."
        ) from None
