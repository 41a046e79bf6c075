"""The submit path of every kind of work: resolve the request, record it, let it be dispatched.

Whatever is wrong with a request is said here, before anything is recorded.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePath
from random import Random
from typing import Any, ClassVar, Generic, TypeVar

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.data import DataService
from ktrdr.backend.dispatch.dispatcher import Dispatcher
from ktrdr.backend.fleet.registry import WORKER_TYPE, WorkerRegistry
from ktrdr.backend.operations.checkpoints import CheckpointFiles
from ktrdr.backend.submission.no_workers import no_workers
from ktrdr.backend.submission.request_digest import request_digest
from ktrdr.backend.submission.resolved import Resolved, Stamp
from ktrdr.bars import parse_time
from ktrdr.clock import Clock
from ktrdr.datasets.plan import FeaturePlan
from ktrdr.errors import (
    Conflict,
    FieldError,
    InvalidInput,
    KtrdrError,
    NoWorkers,
    TooFewBars,
    Unavailable,
)
from ktrdr.operations.ids import new_operation_id
from ktrdr.operations.model import (
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
)
from ktrdr.operations.store import OperationStore
from ktrdr.protocol.requests import StartBacktest, StartTraining
from ktrdr.protocol.specs import DatasetRef, JobSpec, canonical_json
from ktrdr.strategies import StrategyLibrary
from ktrdr.timeframe import Timeframe

__all__ = ["Resources", "ServiceOrchestrator", "Stamps", "Work"]

R = TypeVar("R", StartBacktest, StartTraining)
Stamps = Mapping[str, Stamp | None]
_NO_MEANING = {"priority", "when_busy", "time_limit_s"}


async def nothing() -> None:
    """What there is to do where nothing is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the submit path reads and writes."""

    store: OperationStore
    registry: WorkerRegistry
    dispatcher: Dispatcher
    data: DataService
    library: StrategyLibrary
    artifacts: FileArtifactStore
    clock: Clock
    random: Random
    submitted: Callable[[Operation, datetime], None] = lambda *_: None  # and when its request came
    fresh: Callable[[], Awaitable[None]] = nothing
    """Sees to it that the registry is up to date; for a backend that does not talk to the workers itself."""


@dataclass(frozen=True, slots=True)
class Work:
    """A resolved request."""

    spec: JobSpec
    requirements: Mapping[str, Any] = field(default_factory=dict)


class ServiceOrchestrator(ABC, Generic[R]):
    """Validate, record, dispatch; subclasses say how their requests are resolved."""

    operation_type: ClassVar[OperationType]

    def __init__(self, resources: Resources) -> None:
        self._use = resources
        self._resolved = Resolved[Work](resources.data.market.stamp)

    @abstractmethod
    async def resolve(self, request: R) -> Work:
        """The work that the request means; raises what is wrong with it."""

    async def submit(self, request: R, idempotency_key: str | None = None) -> Operation:
        """Record the request as an operation; a free worker gets it at once.

        Raises
        ------
        InvalidInput, NotFound
            If the request cannot be carried out as it is.
        NoWorkers
            If no worker of the needed type is registered and usable.
        Unavailable
            If all are busy and the request does not want to wait.
        """
        began = self._use.clock.now()
        asked = request_digest(self.operation_type.value, request) if idempotency_key is not None else None
        try:
            work = await self.resolve(request)
        except KtrdrError:
            if (earlier := await self._recorded(idempotency_key, asked)) is not None:
                return earlier  # it meant something when it came first: its strategy is gone since, say
            raise
        if request.time_limit_s is not None:
            work = replace(work, requirements={**work.requirements, "time_limit_s": request.time_limit_s})
        await self._use.fresh()
        try:
            self._refuse_without_workers(work, reject=request.when_busy == "reject")
        except (NoWorkers, Unavailable):
            if idempotency_key is None or await self._use.store.by_key(idempotency_key) is None:
                raise  # else it was recorded before: perhaps it is what keeps the worker busy
        operation = await self.record(
            canonical_json(work.spec),
            requirements=work.requirements,
            priority=request.priority,
            idempotency_key=idempotency_key,
            asked=asked,
        )
        self._use.submitted(operation, began)
        return operation

    async def retry(self, earlier: Operation, idempotency_key: str | None = None) -> Operation:
        """The same work again, as a new operation that names the earlier one; once per key.

        Raises
        ------
        Conflict
            If the earlier one did not end failed or cancelled.
        """
        _require_unsuccessful(earlier, "retried")
        return await self._again(earlier, idempotency_key, request_digest("retry", earlier.operation_id))

    async def resume(self, earlier: Operation, idempotency_key: str | None = None) -> Operation:
        """The same work, going on from the earlier one's newest checkpoint, as a new operation; once per key.

        Raises
        ------
        Conflict
            If the earlier one did not end failed or cancelled, or there is no checkpoint of it to go on from.
        """
        _require_unsuccessful(earlier, "resumed")
        asked = request_digest("resume", earlier.operation_id)
        try:
            checkpoints = await self._to_go_on_from(earlier)
        except Conflict:
            if (known := await self._recorded(idempotency_key, asked)) is not None:
                return known  # there were checkpoints when it came first
            raise
        return await self._again(earlier, idempotency_key, asked, checkpoints)

    async def _to_go_on_from(self, earlier: Operation) -> tuple[str, ...]:
        """The checkpoints of it that are whole, newest first; Conflict if there is none."""
        instead = f"Run it from its start: ktrdr operations retry {earlier.operation_id}"
        if not earlier.checkpoints:
            raise Conflict(
                f"Operation {earlier.operation_id} has no checkpoint: it ended before one was written. {instead}"
            )
        checkpoints = await CheckpointFiles(self._use.store, self._use.artifacts).intact(earlier.checkpoints)
        if not checkpoints:
            raise Conflict(
                f"The checkpoints of operation {earlier.operation_id} are damaged or gone. {instead}"
            )
        return checkpoints

    async def _recorded(self, idempotency_key: str | None, asked: str | None) -> Operation | None:
        """What this very request was recorded as, if it came before."""
        if idempotency_key is None:
            return None
        known = await self._use.store.by_key(idempotency_key)
        return known if known is not None and known.request_digest == asked else None

    async def _again(
        self, earlier: Operation, idempotency_key: str | None, asked: str, checkpoints: tuple[str, ...] = ()
    ) -> Operation:
        return await self.record(
            await self._use.store.spec(earlier.spec_digest),
            requirements=earlier.requirements,
            priority=earlier.priority,
            parent=earlier.operation_id,
            idempotency_key=idempotency_key,
            asked=asked,
            checkpoints=checkpoints,
        )

    async def record(
        self,
        spec: bytes,
        *,
        requirements: Mapping[str, Any],
        priority: int,
        parent: str | None = None,
        idempotency_key: str | None = None,
        asked: str | None = None,
        checkpoints: tuple[str, ...] = (),
    ) -> Operation:
        """Write the operation into the ledger; it is durable when this returns."""
        use = self._use
        new = NewOperation(
            operation_id=new_operation_id(self.operation_type, use.clock, use.random),
            operation_type=self.operation_type,
            spec=spec,
            priority=priority,
            parent_operation_id=parent,
            idempotency_key=idempotency_key,
            requirements=requirements,
            request_digest=asked if idempotency_key is not None else None,
            checkpoints=checkpoints,
        )
        try:
            return await use.dispatcher.submit(new)
        except Conflict as error:
            if idempotency_key is None:
                raise
            raise InvalidInput(error.message) from None

    def _refuse_without_workers(self, work: Work, *, reject: bool) -> None:
        kind, gpu = WORKER_TYPE[self.operation_type], bool(work.requirements.get("require_gpu"))
        registry = self._use.registry
        if not registry.usable(kind):
            raise no_workers(registry, kind, gpu=False)
        if gpu and not registry.usable(kind, gpu=True):
            raise no_workers(registry, kind, gpu=True)
        if reject and self.operation_type in self._use.dispatcher.paused:
            raise Unavailable(
                f"{self.operation_type.value.capitalize()} operations are paused, and the request asked not to wait.",
                5.0,
            )
        if reject and registry.select(kind, require_gpu=gpu) is None:
            raise Unavailable(f"Every {kind.value} worker is busy, and the request asked not to wait.", 5.0)

    # --- resolving ----------------------------------------------------------------------------------------------

    async def _once(self, request: R, names: Hashable, work: Callable[[], tuple[Stamps, Work]]) -> Work:
        """What the request means: remembered, else made on a thread, which reads files. ``names``: all that the meaning
        depends on beside the request and the market data."""
        # not model_dump_json, which refuses half characters before it can be said what is wrong with them
        key = (json.dumps(request.model_dump(mode="json", exclude=_NO_MEANING)), names)
        known = self._resolved.get(key)
        if known is not None:
            return known
        stamps, made = await asyncio.to_thread(work)
        self._resolved.put(key, stamps, made)
        return made

    def _stamps(self, symbols: Iterable[str]) -> Stamps:
        """Of market data that is about to be read."""
        return {symbol: self._use.data.market.stamp(symbol) for symbol in symbols}

    # --- parts of requests --------------------------------------------------------------------------------------

    async def _document(self, request: R) -> tuple[str, str] | None:
        """Text and name of the strategy that the request names in one of three ways; None if in none."""
        given = {
            name: value
            for name in ("strategy", "strategy_name", "strategy_config_path")
            if (value := getattr(request, name)) is not None
        }
        if len(given) > 1:
            raise InvalidInput(
                f"The request has {' and '.join(given)}; give one of them.",
                [FieldError(f"/{name}", "only one of these") for name in given],
            )
        if request.strategy is not None:
            return request.strategy, "<inline>"
        name = request.strategy_name
        if request.strategy_config_path is not None:
            name = _name_of_path(request.strategy_config_path)
        if name is None:
            return None
        return await asyncio.to_thread(self._use.library.text, name), f"{name}.yaml"

    def _survey(
        self,
        plan: FeaturePlan,
        symbol: str,
        timeframes: tuple[Timeframe, ...],
        start: str | None,
        end: str | None,
        fewest: int,
        purpose: str,
    ) -> list[DatasetRef]:
        """The datasets that serve the timeframes; blocks, so it is called on a thread.

        Ranges are refused that end before they start, or without enough bars for the warm-up of every timeframe and
        ``fewest`` rows of the base.
        """
        if start is not None and end is not None and parse_time(start) > parse_time(end):
            raise InvalidInput(
                f"The range ends before it starts: start_date {start} is after end_date {end}. Exchange them."
            )
        needed = dict.fromkeys((*timeframes, *plan.timeframes))
        found = {timeframe: self._use.data.market.resolve(symbol, timeframe) for timeframe in needed}
        for timeframe in plan.timeframes:
            manifest = found[timeframe]
            before, inside = self._use.data.count(manifest, timeframe, start, end)
            warmup = plan.warmup(timeframe)
            rows = fewest if timeframe == plan.base_timeframe else 1
            usable = min(inside, before + inside - warmup)
            if usable >= rows:
                continue
            asked = f"{start or 'the first bar'} to {end or 'the last'}"
            raise TooFewBars(
                f"{symbol} {timeframe.value} has {inside} bars from {asked} and {before} before; the indicators need "
                f"{warmup} to warm up and {purpose} at least {rows} more. Stored are {manifest.start:%Y-%m-%d} to "
                f"{manifest.end:%Y-%m-%d}: widen the range or import more data."
            )
        return [
            DatasetRef(symbol=symbol, timeframe=timeframe.value, manifest=found[timeframe].artifact)
            for timeframe in timeframes
        ]


def _require_unsuccessful(operation: Operation, what: str) -> None:
    if operation.status not in (OperationStatus.FAILED, OperationStatus.CANCELLED):
        raise Conflict(
            f"Operation {operation.operation_id} is {operation.status}; only a failed or cancelled one can be {what}."
        )


def _name_of_path(path: str) -> str:
    """The strategy's name in ``NAME.yaml`` or ``strategies/NAME.yaml``; it can lead nowhere else."""
    parts = PurePath(path.replace("\\", "/")).parts
    inside = len(parts) == 1 or (len(parts) == 2 and parts[0] == "strategies")
    if not inside or not parts[-1].endswith((".yaml", ".yml")):
        raise InvalidInput(
            f"strategy_config_path '{path}' must be NAME.yaml inside the backend's strategy folders. "
            "Send the text as 'strategy', or a stored strategy's name as 'strategy_name'.",
            [FieldError("/strategy_config_path", "not a file inside the strategy folders")],
        )
    return PurePath(parts[-1]).stem
