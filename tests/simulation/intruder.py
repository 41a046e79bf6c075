"""Somebody on the workers' network who has no business there, or a worker of the fleet that turned bad."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Literal

from ktrdr.errors import ServerUnreachable
from ktrdr.operations.model import WorkerType
from ktrdr.protocol.messages import Capabilities, DeliverRequest, HealthView, RegisterRequest, ReportRequest
from ktrdr.protocol.transports import Answer
from ktrdr.protocol.worker_key import HEADER, bind
from simulation.laws import Laws, result_of
from simulation.network import Message, Network, SimulatedTransport
from simulation.passes import FORGED
from simulation.trace import Trace
from simulation.virtual_time import Process
from simulation.worker import SimulatedWorker

__all__ = ["Intruder"]

_KEY, _NAME = "a key of his own", "stranger"
_LOOKED_AT = 20  # workers, for one that is busy, however many there are


class Intruder:
    """Wants to be given work without a token, to end the work of others, and to do what a worker may not."""

    paused: asyncio.Event | None = None
    at_once = None

    def __init__(
        self,
        network: Network,
        random: Random,
        trace: Trace,
        laws: Laws,
        workers: Sequence[SimulatedWorker],
        doors: Sequence[str],
    ) -> None:
        self._random, self._trace, self._laws, self._workers, self._doors = (
            random,
            trace,
            laws,
            workers,
            doors,
        )
        self.url, self.process = "http://10.255.0.1:5003", Process(_NAME)
        self._instance_id = bind(f"{_NAME}-1", _KEY)
        self._transport = SimulatedTransport(network, self.url, self.process)
        network.endpoints[self.url] = self

    async def run(self) -> None:
        """Until somebody ends it."""
        ways = (
            self._as_stranger,
            self._in_anothers_name,
            self._in_anothers_name,
            self._of_anothers,
            self._beyond,
        )
        while True:
            await asyncio.sleep(self._random.uniform(2.0, 20.0))
            await self._random.choice(ways)()

    async def handle(self, message: Message) -> Answer:
        if message.path == "/health":
            idle = HealthView(
                worker_status="idle", worker_id=_NAME, instance_id=self._instance_id, version="1.1.0"
            )
            return Answer(200, {}, idle.model_dump_json().encode())
        self._laws.demand(
            not message.path.partition("?")[0].endswith("/start"),
            "no dispatch to workers without a credential",
            f"{message.sender} sends {message.path}",
            message.about,
        )
        return Answer(404)

    # --- what it tries ------------------------------------------------------------------------------------------

    async def _as_stranger(self) -> None:
        """Be taken for a worker."""
        passes = self._laws.passes
        kind = self._random.choice(tuple(WorkerType))
        request = RegisterRequest(
            worker_id=_NAME,
            worker_type=kind.value,
            endpoint_url=self.url,
            capabilities=Capabilities(gpu=True, version="1.1.0"),
            instance_id=self._instance_id,
        )
        shown = self._random.choice((None, "a guess", passes.reader, *passes.worthless()[-2:]))
        await self._ask("POST", "/workers/register", request.model_dump(mode="json"), shown, _KEY)

    async def _in_anothers_name(self) -> None:
        """Say as the worker that runs something that it has ended; with a good token, and another key."""
        victim = self._busy()
        if victim is not None:
            key = self._random.choice((_KEY, self._any().key, ""))
            if key != victim.key:
                status = await self._deliver(victim, victim, key)
                self._trace.situations["key of another worker refused"] += status == 403

    async def _of_anothers(self) -> None:
        """Say, as a worker of the fleet, that what another one runs has ended."""
        victim, liar = self._busy(), self._any()
        if victim is not None and victim is not liar and liar.slot.current is None:
            status = await self._deliver(victim, liar, liar.key)
            self._trace.situations["end of another's attempt ignored"] += status == 200

    async def _beyond(self) -> None:
        """With a worker's token, what only people may do."""
        victim = self._any()
        operation_id = next(iter(self._laws.keys.values()), "none")
        method, path, body = self._random.choice(
            (
                ("POST", "/queue/pause", {}),
                ("POST", f"/workers/{victim.worker_id}/drain", None),
                ("POST", f"/operations/{operation_id}/cancel", None),
                ("GET", f"/operations/{operation_id}", None),
                ("POST", "/tokens", {"name": FORGED, "scopes": ["admin"]}),
                ("POST", "/operations/cancel", {}),
            )
        )
        await self._ask(method, path, body, victim.token, "")

    # --- how ----------------------------------------------------------------------------------------------------

    def _any(self) -> SimulatedWorker:
        return self._random.choice(self._workers)

    def _busy(self) -> SimulatedWorker | None:
        looked_at = [self._any() for _ in range(_LOOKED_AT)]
        return next((w for w in looked_at if w.process is not None and w.slot.current is not None), None)

    async def _deliver(self, victim: SimulatedWorker, speaker: SimulatedWorker, key: str) -> int | None:
        assert victim.slot.current is not None
        run = victim.slot.current.run
        status: Literal["completed", "failed"] = self._random.choice(("completed", "failed"))
        forged = DeliverRequest(
            operation_id=run.operation_id,
            attempt=run.attempt,
            status=status,
            summary=result_of(run.operation_id, run.attempt, FORGED, "") if status == "completed" else {},
            error=FORGED if status == "failed" else None,
        )
        report = ReportRequest(instance_id=speaker.instance_id, worker_status="busy", delivery=forged)
        path = f"/workers/{speaker.worker_id}/report"
        return await self._ask("POST", path, report.model_dump(mode="json"), speaker.token, key)

    async def _ask(self, method: str, path: str, body: Any, token: str | None, key: str) -> int | None:
        headers = {HEADER: key} if key else {}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        url = f"{self._random.choice(self._doors)}/api/v1{path}"
        try:
            answer = await self._transport.request(method, url, json=body, headers=headers)
        except ServerUnreachable:
            return None
        return answer.status
