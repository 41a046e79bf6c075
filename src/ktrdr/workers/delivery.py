"""Brings results to the backend: into the outbox, up with the files, then the report; until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from random import Random

from ktrdr.errors import CorruptArtifact, InvalidInput, KtrdrError, NotFound
from ktrdr.logs import about
from ktrdr.protocol.messages import DeliverRequest, ReportRequest
from ktrdr.workers.backend_link import BackendLink
from ktrdr.workers.outbox import Outbox, entry_key

__all__ = ["Courier"]

_log = logging.getLogger(__name__)
_TOLD_LENGTH = 2_000
_LETTER_BYTES = 512 << 10  # of a registration with the outbox; the backend takes messages of 1 MiB


class Courier:
    """Delivers the outbox.

    Parameters
    ----------
    report
        Makes the report message around a delivery, with the worker's state at that moment.
    on_unknown
        Called when the backend does not know this worker: time to register again.
    on_done
        Called with ``operation_id:attempt`` when an entry has left the outbox.
    first_retry_s, longest_retry_s
        Exponential back-off between passes over what could not be delivered.
    """

    def __init__(
        self,
        link: BackendLink,
        outbox: Outbox,
        worker_id: str,
        *,
        report: Callable[[DeliverRequest], ReportRequest],
        on_unknown: Callable[[], None],
        on_done: Callable[[str], None],
        random: Random,
        first_retry_s: float = 1.0,
        longest_retry_s: float = 30.0,
    ) -> None:
        self._link, self._outbox, self._worker_id = link, outbox, worker_id
        self._report, self._on_unknown = report, on_unknown
        self._on_done, self._random = on_done, random
        self._first_retry_s, self._longest_retry_s = first_retry_s, longest_retry_s
        self._wake, self._nudge = asyncio.Event(), asyncio.Event()
        self._busy = asyncio.Lock()
        self._complained = False

    async def deliver(self, delivery: DeliverRequest) -> bool:
        """Store, upload and report one result; True if it was acknowledged, else it waits in the outbox."""
        await asyncio.to_thread(self._outbox.add, delivery)
        async with self._busy:
            done = await self._attempt(delivery)
        if not done:
            self._wake.set()
        return done

    async def uploaded_entries(self, limit: int = 50) -> list[DeliverRequest]:
        """Entries whose files the backend has: they may go along with a registration."""
        ready: list[DeliverRequest] = []
        size = 0
        for delivery in (await asyncio.to_thread(self._outbox.entries))[:limit]:
            size += len(delivery.model_dump_json())
            if size > _LETTER_BYTES:
                break
            with contextlib.suppress(KtrdrError, OSError):
                await self._link.upload(delivery.artifacts.values())
                ready.append(await self._with_checkpoint(delivery))
        return ready

    def awaited_files(self) -> set[str]:
        """Digests of files that undelivered results need."""
        entries = self._outbox.entries()
        checkpoints = {entry.checkpoint_digest for entry in entries if entry.checkpoint_digest is not None}
        return {digest for entry in entries for digest in entry.artifacts.values()} | checkpoints

    def acknowledge(self, keys: list[str]) -> None:
        """The backend has these for certain."""
        for key in keys:
            self._outbox.remove(key)
            self._on_done(key)

    async def run(self) -> None:
        """Retry for ever what waits in the outbox; sleeps while there is nothing."""
        delay_s = self._first_retry_s
        while True:
            try:
                self._wake.clear()  # before the look, so that what comes in between is not missed
                if not await asyncio.to_thread(self._outbox.entries):
                    delay_s = self._first_retry_s
                    self._complained = False
                    await self._wake.wait()
                with contextlib.suppress(TimeoutError):
                    # asyncio.wait_for (3.11) may lose a cancel
                    async with asyncio.timeout(delay_s * self._random.uniform(0.5, 1.0)):
                        await self._nudge.wait()
                self._nudge.clear()
                delay_s = min(2 * delay_s, self._longest_retry_s)
                await self.flush()
            except Exception:  # the edge of a task that must not end
                _log.exception("Delivering what waits failed unexpectedly; trying again.")
                await asyncio.sleep(self._first_retry_s)

    def nudge(self) -> None:
        """The backend has just shown that it is alive: try now what waits."""
        self._nudge.set()

    async def flush(self) -> bool:
        """One pass over the outbox; True if nothing is left in it."""
        async with self._busy:
            return all(
                [await self._attempt(entry) for entry in await asyncio.to_thread(self._outbox.entries)]
            )

    async def _attempt(self, delivery: DeliverRequest) -> bool:
        with about(operation_id=delivery.operation_id):
            return await self._send(delivery)

    async def _send(self, delivery: DeliverRequest) -> bool:
        key = entry_key(delivery)
        try:
            answer = await self._link.report(self._worker_id, self._report(await self._uploaded(delivery)))
        except NotFound:
            self._on_unknown()
            return False
        except InvalidInput as error:
            _log.error(
                "The result of %s is refused for good: %s It is kept in the outbox folder.", key, error
            )
            return await self._refused(delivery, error)
        except (KtrdrError, OSError) as error:
            if not self._complained:
                _log.warning("The result of %s waits on disk until the backend takes it: %s", key, error)
            self._complained = True
            return False
        if answer.acknowledged:
            self.acknowledge([key])
        return answer.acknowledged

    async def _refused(self, delivery: DeliverRequest, refusal: InvalidInput) -> bool:
        """The backend will never take this delivery: tell it at least that the attempt has ended, or it would wait."""
        key = entry_key(delivery)
        if not (delivery.summary or delivery.artifacts or delivery.progress):  # there is nothing to leave out
            self._outbox.remove(key)
            self._on_done(key)
            return True
        self._outbox.set_aside(key)
        bare = DeliverRequest(
            operation_id=delivery.operation_id,
            attempt=delivery.attempt,
            status="failed" if delivery.status == "completed" else delivery.status,
            error=f"The worker's result was refused by the backend: {refusal}"[:_TOLD_LENGTH],
        )
        await asyncio.to_thread(self._outbox.add, bare)
        return await self._attempt(bare)

    async def _uploaded(self, delivery: DeliverRequest) -> DeliverRequest:
        """Bring the files up; a result whose files are lost here is a failure."""
        try:
            await self._link.upload(delivery.artifacts.values())
        except (NotFound, CorruptArtifact) as error:
            told = f"The worker has lost a file of the result: {error}"
            return delivery.model_copy(update={"status": "failed", "artifacts": {}, "error": told})
        return await self._with_checkpoint(delivery)

    async def _with_checkpoint(self, delivery: DeliverRequest) -> DeliverRequest:
        """Bring the checkpoint up as well; if its file is lost here, the backend keeps what it has."""
        if delivery.checkpoint_digest is None:
            return delivery
        try:
            await self._link.upload([delivery.checkpoint_digest])
        except (NotFound, CorruptArtifact) as error:
            _log.warning("The last checkpoint of %s is lost: %s", delivery.operation_id, error)
            return delivery.model_copy(update={"checkpoint_digest": None})
        return delivery
