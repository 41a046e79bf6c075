"""The backend's client for one worker: a method per call of the worker contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from ktrdr.errors import AnotherIncarnation, Conflict, InvalidInput, NotFound, ServerUnreachable
from ktrdr.operations.model import OperationType
from ktrdr.protocol.messages import HealthView, MetricsView, OperationView, StartJob
from ktrdr.protocol.transports import Answer, Transport

__all__ = ["LogPiece", "OperationServiceProxy", "problem_detail", "restarted_since"]

M = TypeVar("M", bound=BaseModel)
START_PATHS: Mapping[OperationType, str] = {
    OperationType.BACKTESTING: "/backtests/start",
    OperationType.TRAINING: "/training/start",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """A stretch of a job's log. ``offset`` is where it begins, ``size`` how long the log is, ``attempt`` whose it is;
    None if the worker did not say."""

    content: bytes
    offset: int | None = None
    size: int | None = None
    attempt: int | None = None


def problem_detail(answer: Answer) -> str:
    """What an error answer says of itself: its problem's detail, or the status with the start of the body."""
    try:
        body = answer.json()
        return str(body["detail"])
    except (InvalidInput, KeyError, TypeError):
        return f"HTTP {answer.status} {answer.body[:200].decode(errors='replace')}".strip()


def restarted_since(answer: Answer) -> bool:
    """Whether the worker refused because the incarnation that was meant is gone."""
    try:
        body = answer.json()
    except InvalidInput:
        return False
    return isinstance(body, dict) and body.get("type") == f"urn:ktrdr:problem:{AnotherIncarnation.slug}"


class OperationServiceProxy:
    """Talks to one worker.

    Laws
    ----
    - ServerUnreachable: the request did not leave. NoAnswer: its outcome is unknown. Both as ``Transport`` has it.
    - ``start`` hands out every answer unread, because the caller's next step depends on its status.
    - The other methods raise NotFound for 404 and Conflict for any other answer that is no success.
    """

    def __init__(
        self, transport: Transport, base_url: str, *, token: str | None = None, timeout_s: float = 10.0
    ) -> None:
        self._transport = transport
        self._base = base_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s

    async def health(self) -> HealthView:
        """The worker's answer to a probe."""
        return _read(HealthView, _success(await self._ask("GET", "/health"), "worker", self._base))

    async def start(self, kind: OperationType, job: StartJob, instance_id: str) -> Answer:
        """POST the start request, for this incarnation of the worker and no other."""
        path = f"{START_PATHS[kind]}?{urlencode({'instance_id': instance_id})}"
        return await self._ask("POST", path, job.model_dump(mode="json", exclude_none=True))

    async def operation(self, operation_id: str) -> OperationView:
        """The operation as its worker sees it."""
        answer = await self._ask("GET", f"/api/v1/operations/{operation_id}")
        return _read(OperationView, _success(answer, "operation", operation_id))

    async def metrics(self, operation_id: str, cursor: int) -> MetricsView:
        """Metrics records from ``cursor`` on."""
        answer = await self._ask("GET", f"/api/v1/operations/{operation_id}/metrics?cursor={cursor}")
        return _read(MetricsView, _success(answer, "operation", operation_id))

    async def log(self, operation_id: str, offset: int) -> LogPiece:
        """The job's log from byte ``offset`` on, as far as one answer reaches; UTF-8 text."""
        answer = await self._ask("GET", f"/api/v1/operations/{operation_id}/logs?offset={offset}")
        _success(answer, "operation", operation_id)

        def said(name: str) -> int | None:
            value = answer.headers.get(f"x-log-{name}", "")
            return int(value) if value.isdecimal() else None

        return LogPiece(
            content=answer.body, offset=said("offset"), size=said("size"), attempt=said("attempt")
        )

    async def cancel(self, operation_id: str, attempt: int) -> None:
        """Ask the worker to end this attempt; it answers at once, the end comes as a report."""
        path = f"/api/v1/operations/{operation_id}/cancel?attempt={attempt}"
        _success(await self._ask("DELETE", path), "operation", operation_id)

    async def release(self, operation_id: str, attempt: int) -> None:
        """Ask the worker to give this attempt back; it answers at once, the end comes as a report."""
        path = f"/api/v1/operations/{operation_id}/release?attempt={attempt}"
        _success(await self._ask("POST", path), "operation", operation_id)

    async def _ask(self, method: str, path: str, json: Any = None) -> Answer:
        return await self._transport.request(
            method, self._base + path, json=json, headers=self._headers, timeout_s=self._timeout_s
        )


def _success(answer: Answer, kind: str, name: str) -> Answer:
    if answer.status == 404:
        raise NotFound(kind, name)
    if not answer.ok:
        raise Conflict(f"The worker answered {answer.status}: {problem_detail(answer)}")
    return answer


def _read(model: type[M], answer: Answer) -> M:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ServerUnreachable(
            f"What answers there is not a ktrdr worker of this version: {model.__name__}.{where}: {first['msg']}."
        ) from None
