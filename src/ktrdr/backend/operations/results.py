"""Results as clients read them: the result document, tables as pages or CSV, metrics, all from artifacts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import polars as pl
from pydantic import JsonValue

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.backend.operations.service import OperationsService
from ktrdr.errors import Conflict, InvalidInput, NotFound
from ktrdr.operations.model import Operation, OperationStatus, OperationType
from ktrdr.protocol.messages import MetricsView
from ktrdr.protocol.resources import ResultsView, TablePage

__all__ = ["ResultsService", "Table"]

Table = Literal["trades", "equity"]
_METRICS_KEY = {OperationType.TRAINING: "epochs", OperationType.BACKTESTING: "bars"}
_LIVE = (OperationStatus.RUNNING, OperationStatus.CANCELLING)
_CSV_ROWS = 50_000
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class ResultsService:
    """Reads what operations left behind; while they run, metrics come from their workers."""

    def __init__(
        self,
        operations: OperationsService,
        artifacts: FileArtifactStore,
        registry: WorkerRegistry,
        fleet: Fleet,
    ) -> None:
        self._operations = operations
        self._artifacts = artifacts
        self._registry = registry
        self._fleet = fleet

    async def result(self, operation_id: str) -> ResultsView:
        """The result document of a completed operation.

        Raises
        ------
        Conflict
            If it has not completed; the message says in which status it is.
        """
        digest = await self._operations.artifact(operation_id, "result")
        operation = await self._operations.store.get(operation_id)
        document: dict[str, JsonValue] = json.loads(await asyncio.to_thread(self._artifacts.read, digest))
        base = f"/api/v1/operations/{operation_id}"
        links = {t: f"{base}/results/{t}" for t in ("trades", "equity") if t in operation.artifacts}
        links |= {"metrics": f"{base}/metrics", "logs": f"{base}/logs", "operation": base}
        return ResultsView(
            operation_id=operation_id,
            operation_type=operation.operation_type,
            status=operation.status,
            result_summary=dict(operation.summary or {}),
            result=document,
            links=links,
        )

    async def table(self, operation_id: str, table: Table, limit: int, cursor: str | None) -> TablePage:
        """One page of trades or equity, in time order."""
        first = _row_of(cursor)
        frame = await self._frame(operation_id, table)
        page = frame.slice(first, limit)
        following = first + page.height
        return TablePage(
            operation_id=operation_id,
            columns=frame.columns,
            items=json.loads(_in_iso(page).write_json()),
            total=frame.height,
            next_cursor=str(following) if following < frame.height else None,
        )

    async def csv(self, operation_id: str, table: Table) -> Iterator[str]:
        """The whole table as CSV, in pieces; times are ISO 8601 in UTC."""
        return _csv_pieces(await self._frame(operation_id, table))

    async def metrics(self, operation_id: str, cursor: int) -> MetricsView:
        """Metrics records from ``cursor`` on: of the running job from its worker, of a finished one from its file."""
        operation = await self._operations.store.get(operation_id)
        if operation.status in _LIVE:
            try:
                return await self._fleet.of(self._worker(operation)).metrics(operation_id, cursor)
            except (NotFound, Conflict):
                pass  # it has just ended there; what is delivered is read below
        records: list[dict[str, Any]] = []
        if (digest := operation.artifacts.get("metrics")) is not None:
            lines = (await asyncio.to_thread(self._artifacts.read, digest)).splitlines()
            records = [json.loads(line) for line in lines[cursor:] if line]
        key = _METRICS_KEY.get(operation.operation_type, "history")
        return MetricsView.model_validate(
            {"operation_id": operation_id, key: records, "next_cursor": cursor + len(records)}
        )

    def _worker(self, operation: Operation) -> Any:
        return self._registry.get(operation.worker_id or "")

    async def _frame(self, operation_id: str, table: Table) -> pl.DataFrame:
        digest = await self._operations.artifact(operation_id, table)
        return await asyncio.to_thread(lambda: pl.read_parquet(self._artifacts.path(digest)))


def _row_of(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isdecimal() or len(cursor) > 15:
        raise InvalidInput(
            f"'{cursor[:50]}' is not a cursor of this list; take next_cursor of the page before."
        )
    return int(cursor)


def _in_iso(frame: pl.DataFrame) -> pl.DataFrame:
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    return frame.with_columns(
        [pl.col(name).dt.strftime(_TIME_FORMAT) for name in times]
        + [pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats]
    )


def _csv_pieces(frame: pl.DataFrame) -> Iterator[str]:
    for first in range(0, max(frame.height, 1), _CSV_ROWS):
        piece = frame.slice(first, _CSV_ROWS)
        yield piece.write_csv(include_header=first == 0, datetime_format=_TIME_FORMAT)
