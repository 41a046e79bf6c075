"""The road to the workers: proxies with the worker credential, and background calls whose failure may be repeated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from ktrdr.backend.fleet.registry import WorkerEndpoint
from ktrdr.logs import about
from ktrdr.operations.model import WorkerRecord
from ktrdr.protocol.client import OperationServiceProxy
from ktrdr.protocol.transports import Transport
from ktrdr.protocol.worker_key import call_credential

__all__ = ["Fleet"]

_log = logging.getLogger("ktrdr.backend")


class Fleet:
    """Makes proxies and owns the tasks that talk to workers in the background."""

    def __init__(
        self,
        transport: Transport,
        token: str | None,
        timeout_s: float,
        probe_timeout_s: float,
        secret: str | None = None,
    ) -> None:
        self._transport = transport
        self._token = token
        self._secret = secret
        self._timeout_s = timeout_s
        self._probe_timeout_s = probe_timeout_s
        self._tasks: dict[asyncio.Task[Any], bool] = {}  # in the order in which they began; whether they last

    def credential(self, record: WorkerRecord) -> str | None:
        """What this worker is shown: made for it alone where the backend has a secret, else the common token."""
        if self._secret is None:
            return self._token
        return call_credential(self._secret, record.worker_id, record.instance_id)

    def probe(self, endpoint_url: str) -> OperationServiceProxy:
        """For ``/health``, with its own time-out and no credential: who is there is not known before it answers."""
        return OperationServiceProxy(self._transport, endpoint_url, timeout_s=self._probe_timeout_s)

    def of(self, worker: WorkerEndpoint) -> OperationServiceProxy:
        """The proxy of a registered worker, for starts, cancels and reads."""
        return OperationServiceProxy(
            self._transport,
            worker.record.endpoint_url,
            token=self.credential(worker.record),
            timeout_s=self._timeout_s,
        )

    def spawn(
        self,
        work: Coroutine[Any, Any, Any],
        name: str,
        *,
        operation_id: str | None = None,
        worker_id: str | None = None,
        lasting: bool = False,
    ) -> asyncio.Task[Any]:
        """Run in the background, logging about this operation and worker; a failure is logged, because nobody
        awaits the task. ``lasting``: whoever leads, as watching an operation does."""
        with about(operation_id=operation_id, worker_id=worker_id):
            task = asyncio.create_task(work, name=name)
            self._tasks[task] = lasting
            task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error("Background task '%s' failed", task.get_name(), exc_info=task.exception())

    async def rest(self) -> None:
        """End what runs in the background, but for what lasts: another backend leads, or this one does now."""
        await _end(task for task, lasting in self._tasks.items() if not lasting)

    async def close(self) -> None:
        """End what still runs, then the connections."""
        await _end(self._tasks)
        await self._transport.close()


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
