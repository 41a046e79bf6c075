"""What jobs print and log, kept at the backend so that it outlives attempts, workers and their machines."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WorkerEndpoint, WorkerRegistry
from ktrdr.clock import Clock
from ktrdr.errors import KtrdrError, NotFound, Unavailable
from ktrdr.operations.model import Operation, OperationStatus
from ktrdr.operations.store import OperationStore
from ktrdr.private import private_file, private_folder
from ktrdr.protocol.client import LogPiece
from ktrdr.protocol.messages import DeliverRequest, HealthView

__all__ = ["JobLogs"]

_log = logging.getLogger("ktrdr.backend")
_LIVE = (OperationStatus.RUNNING, OperationStatus.CANCELLING)
_LIMIT = 4 << 20  # of one attempt: its end is kept
_ATTEMPTS = 5  # the newest ones are kept
_PIECES = 32  # of one pull; the rest is for the next
_PATIENCE_S = 2.0  # a reader gets what is known rather than wait longer for a slow worker


@dataclass(slots=True)
class _Live:
    """How far the log of a running attempt was pulled."""

    attempt: int
    worker_id: str
    asked_at: float
    offset: int = 0  # in the worker's file
    asking: asyncio.Task[None] | None = None


class JobLogs:
    """One file per attempt below ``root``, filled from the worker while the job runs.

    - A probe that tells of more log than is here pulls the rest; so does a reader, at most once per ``ttl_s``.
      However many read, one request is under way to a worker.
    - The end of an attempt brings its whole log as an artifact: that of an operation's last attempt belongs to the
      operation, those of earlier ones are filed here.
    - A worker that is lost leaves what was pulled.
    - A disk that takes no more costs log lines, never an operation.
    """

    def __init__(
        self,
        root: Path,
        artifacts: FileArtifactStore,
        registry: WorkerRegistry,
        fleet: Fleet,
        clock: Clock,
        ttl_s: float,
    ) -> None:
        self._root = root
        self._artifacts = artifacts
        self._registry = registry
        self._fleet = fleet
        self._clock = clock
        self._ttl_s = ttl_s
        self._live: dict[str, _Live] = {}
        self.pulls = True
        """Whether this backend fills the files; one that follows reads what the leader filed."""

    # --- filling ------------------------------------------------------------------------------------------------

    def noticed(self, worker: WorkerEndpoint, view: HealthView) -> None:
        """A probe says what runs at a worker and how much log there is."""
        if view.current_operation is None or view.current_attempt is None or not view.log_size:
            return
        if worker.reserved_for != (view.current_operation, view.current_attempt):
            return
        entry = self._entry(view.current_operation, view.current_attempt, worker.worker_id)
        if view.log_size > entry.offset:
            self._pull_soon(view.current_operation, entry)

    async def keep(self, delivery: DeliverRequest) -> None:
        """File the log of an attempt that ended and was not the operation's last, or may not be."""
        digest = delivery.artifacts.get("log")
        if digest is None or delivery.status not in ("child_died", "released"):
            return
        self._live.pop(delivery.operation_id, None)

        def work() -> None:
            path = self._path(delivery.operation_id, delivery.attempt)
            content = self._artifacts.read(digest)
            private_folder(path.parent)
            with open(path, "wb", opener=private_file) as file:
                file.write(content)
            for outdated in sorted(path.parent.glob("*.log"))[:-_ATTEMPTS]:
                outdated.unlink(missing_ok=True)

        await self._filing(work)

    def settled(self, operation: Operation) -> None:
        """The operation has ended: nothing is pulled any more."""
        self._live.pop(operation.operation_id, None)

    async def forget(self, operation_id: str) -> None:
        """The operation was deleted."""
        self._live.pop(operation_id, None)
        folder = self._root / operation_id
        if folder.is_dir():
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def rest(self) -> None:
        """Another backend fills the files from now on."""
        self.pulls = False
        self._live.clear()

    async def tidy(self, store: OperationStore) -> None:
        """Remove what belongs to operations that the ledger no longer has; there may be a hundred thousand to look at."""
        try:
            for operation_id in await asyncio.to_thread(self._filed_ones):
                try:
                    await store.get(operation_id)
                except NotFound:
                    await self.forget(operation_id)
        except (Unavailable, OSError) as error:
            _log.info("Job logs of deleted operations stay on disk until the next start: %s", error)

    def _filed_ones(self) -> list[str]:
        return os.listdir(self._root) if self._root.is_dir() else []

    def _entry(self, operation_id: str, attempt: int, worker_id: str) -> _Live:
        entry = self._live.get(operation_id)
        if entry is None or (entry.attempt, entry.worker_id) != (attempt, worker_id):
            entry = _Live(attempt, worker_id, self._clock.monotonic() - self._ttl_s)
            self._live[operation_id] = entry
        return entry

    def _pull_soon(self, operation_id: str, entry: _Live) -> None:
        if entry.asking is None:
            entry.asking = self._fleet.spawn(
                self._pull(operation_id, entry),
                f"log of {operation_id}",
                operation_id=operation_id,
                worker_id=entry.worker_id,
            )

    async def _pull(self, operation_id: str, entry: _Live) -> None:
        try:
            for _ in range(_PIECES):
                worker = self._registry.find(entry.worker_id)
                if worker is None or self._live.get(operation_id) is not entry:
                    return
                piece = await self._fleet.of(worker).log(operation_id, entry.offset)
                if piece.attempt not in (None, entry.attempt):
                    return
                if not await self._filed(operation_id, entry, piece):
                    return
        except KtrdrError as error:  # the probes judge the worker; what is here stays
            _log.debug("The log of %s cannot be read now: %s", operation_id, error)
        finally:
            entry.asked_at = self._clock.monotonic()
            entry.asking = None

    async def _filed(self, operation_id: str, entry: _Live, piece: LogPiece) -> bool:
        """File a piece; whether there is more to ask for."""
        begin = piece.offset is None or entry.offset == 0
        cut = 0 if begin else max(0, (piece.offset or 0) - entry.offset)  # the worker did not keep it
        path = self._path(operation_id, entry.attempt)
        reached = (piece.offset or 0) + len(piece.content)
        skipped = max(0, (piece.size or 0) - reached - _LIMIT)  # it prints faster than anybody reads
        before, behind = _left_out(cut), _left_out(skipped)

        def work() -> None:
            private_folder(path.parent)
            with open(path, "wb" if begin else "ab", opener=private_file) as file:
                file.write(before + piece.content + behind)
            if path.stat().st_size > 2 * _LIMIT:
                path.write_bytes(path.read_bytes()[-_LIMIT:])

        if piece.content and not await self._filing(work):
            return False
        if piece.offset is None or piece.size is None:  # a worker that sends its log's end and no more
            return False
        entry.offset = reached + skipped
        return bool(piece.content) and entry.offset < piece.size

    async def _filing(self, work: Callable[[], None]) -> bool:
        try:
            await asyncio.to_thread(work)
        except (OSError, KtrdrError) as error:
            _log.warning("A job's log cannot be kept in %s: %s", self._root, error)
            return False
        return True

    def _path(self, operation_id: str, attempt: int) -> Path:
        return self._root / operation_id / f"{attempt:06d}.log"

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self, operation: Operation) -> bytes:
        """The logs of all attempts that are kept, in their order; of a running one at most ``ttl_s`` old."""
        operation_id = operation.operation_id
        if self.pulls and operation.status in _LIVE and self._held(operation):
            entry = self._entry(operation_id, operation.attempt, str(operation.worker_id))
            if self._clock.monotonic() - entry.asked_at >= self._ttl_s:
                self._pull_soon(operation_id, entry)
            if entry.asking is not None:
                await asyncio.wait({entry.asking}, timeout=_PATIENCE_S)
        last = operation.artifacts.get("log")
        return await asyncio.to_thread(self._whole, operation_id, operation.attempt, last)

    def _held(self, operation: Operation) -> bool:
        """Whether its worker still has it. What the reader knows may be older than the end, after which nobody would
        remove an entry that is made now."""
        worker = None if operation.worker_id is None else self._registry.find(operation.worker_id)
        return worker is not None and worker.reserved_for == (operation.operation_id, operation.attempt)

    def _whole(self, operation_id: str, newest: int, last: str | None) -> bytes:
        files = sorted((self._root / operation_id).glob("*.log"))
        parts = [file.read_bytes() for file in files if last is None or int(file.stem) != newest]
        if last is not None:
            parts.append(self._artifacts.read(last))
        joined = b"".join(part if part.endswith(b"\n") else part + b"\n" for part in parts[:-1] if part)
        return joined + b"".join(parts[-1:])


def _left_out(count: int) -> bytes:
    return b"\n[... %d bytes are left out here ...]\n" % count if count else b""
