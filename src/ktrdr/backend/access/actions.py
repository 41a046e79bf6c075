"""What the routes that change something are called in the audit record, and how a request becomes an entry."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Send

from ktrdr.backend.access.audit import AuditLog
from ktrdr.backend.access.principal import Principal

__all__ = ["ACTIONS", "UNRECORDED", "recording", "tell", "unremarkable"]

ACTIONS: Mapping[str, str] = {
    "POST /api/v1/backtests/start": "operation.submit",
    "POST /api/v1/trainings/start": "operation.submit",
    "POST /api/v1/training/start": "operation.submit",
    "POST /api/v1/operations/{operation_id}/cancel": "operation.cancel",
    "DELETE /api/v1/operations/{operation_id}/cancel": "operation.cancel",
    "POST /api/v1/operations/cancel": "operations.cancel",
    "POST /api/v1/operations/{operation_id}/retry": "operation.retry",
    "POST /api/v1/operations/{operation_id}/resume": "operation.resume",
    "DELETE /api/v1/operations/{operation_id}": "operation.delete",
    "POST /api/v1/queue/pause": "queue.pause",
    "POST /api/v1/queue/unpause": "queue.unpause",
    "POST /api/v1/workers/register": "worker.register",
    "POST /api/v1/workers/{worker_id}/report": "worker.report",
    "POST /api/v1/workers/{worker_id}/drain": "worker.drain",
    "POST /api/v1/workers/{worker_id}/undrain": "worker.undrain",
    "DELETE /api/v1/workers/{worker_id}": "worker.forget",
    "POST /api/v1/data/samples": "data.samples",
    "POST /api/v1/data/import": "data.import",
    "DELETE /api/v1/data/{symbol}/{timeframe}": "data.delete",
    "PUT /api/v1/strategies/{name}": "strategy.save",
    "POST /api/v1/artifacts/gc": "artifacts.gc",
    "POST /api/v1/tokens": "token.create",
    "DELETE /api/v1/tokens/{name}": "token.revoke",
}
"""Route to the word under which it is recorded."""

UNRECORDED = {
    "POST /api/v1/strategies/validate",  # changes nothing
    "PUT /api/v1/artifacts/{sha256}",  # bytes under their own digest: they mean nothing until something names them
}
_FROM_WORKERS = ("worker.register", "worker.report")


def tell(scope: MutableMapping[str, Any], subject: str, detail: str = "") -> None:
    """Say what a request is about, where its path does not."""
    scope["state"]["audit"] = (subject, detail)


def unremarkable(scope: MutableMapping[str, Any]) -> None:
    """Leave a request that succeeds out of the record: a worker's repeated registration changes nothing."""
    scope["state"]["audit"] = None


def recording(
    log: AuditLog, scope: MutableMapping[str, Any], route: str, variables: Mapping[str, str], send: Send
) -> Send:
    """``send`` that records the request before its answer leaves."""
    what = ACTIONS[route]
    principal: Principal = scope["state"]["principal"]

    async def record(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = int(message["status"])
            told = scope["state"].get("audit", ("", ""))
            if _worth(what, status, told is None):
                subject, detail = told or ("", "")
                named = "/".join(variables.values())
                made = Headers(raw=message.get("headers", [])).get("location", "").rpartition("/")[2]
                log.append(
                    who=principal.name,
                    address=str((scope.get("client") or ("",))[0]),
                    what=what,
                    subject=subject or named or made,
                    outcome=status,
                    detail=detail or (made if named else ""),
                )
        await send(message)

    return record


def _worth(what: str, status: int, unremarkable: bool) -> bool:
    """Workers repeat themselves: of what they say, changes are recorded, and refusals that concern who they are."""
    if what in _FROM_WORKERS and status >= 400:
        return status in (403, 409)
    return not unremarkable
