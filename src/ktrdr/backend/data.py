"""Market data as the backend serves it. Every coroutine that touches files does so on a thread."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import IntArray, parse_time
from ktrdr.errors import InvalidBars
from ktrdr.market.importer import import_file
from ktrdr.market.manifest import DatasetManifest, load_dataset
from ktrdr.market.report import Policy
from ktrdr.market.samples import install_samples
from ktrdr.market.store import MarketStore
from ktrdr.timeframe import Timeframe

__all__ = ["DataService"]

_DAY_US = 86_400_000_000
_REMEMBERED = 8


class DataService:
    """The market store, and the open times of the datasets that were asked for last (to count bars at submit)."""

    def __init__(self, root: Path, artifacts: FileArtifactStore) -> None:
        self.market = MarketStore(root, artifacts)
        self._artifacts = artifacts
        self._importing = asyncio.Lock()
        self._times: OrderedDict[tuple[str, Timeframe], IntArray] = OrderedDict()
        self._lock = threading.Lock()

    async def datasets(self) -> tuple[DatasetManifest, ...]:
        """Every stored dataset."""
        return await asyncio.to_thread(self.market.list)

    async def manifest(self, symbol: str, timeframe: str) -> DatasetManifest:
        """One stored dataset; raises NotFound."""
        return await asyncio.to_thread(self.market.manifest, symbol, Timeframe.parse(timeframe))

    async def resolve(self, symbol: str, timeframe: Timeframe) -> DatasetManifest:
        """The dataset that serves a timeframe, perhaps by resampling; raises NotFound."""
        return await asyncio.to_thread(self.market.resolve, symbol, timeframe)

    async def delete(self, symbol: str, timeframe: str) -> None:
        """Forget a dataset; operations that name its digest keep their copy."""
        await asyncio.to_thread(self.market.delete, symbol, Timeframe.parse(timeframe))

    async def install_samples(self) -> tuple[DatasetManifest, ...]:
        """Put the bundled data into the store."""
        async with self._importing:
            return await asyncio.to_thread(install_samples, self.market)

    async def import_upload(
        self,
        path: Path,
        *,
        symbol: str,
        timeframe: str,
        calendar: str | None,
        policy: Policy,
        time_zone: str | None = None,
    ) -> tuple[DatasetManifest, list[str]]:
        """Read an uploaded file into the store; one import at a time.

        Raises
        ------
        InvalidBars
            If the file has faults; nothing is stored.
        """

        def work() -> tuple[DatasetManifest, list[str]]:
            try:
                imported = import_file(
                    path,
                    symbol=symbol,
                    timeframe=Timeframe.parse(timeframe),
                    calendar=calendar,
                    policy=policy,
                    time_zone=time_zone,
                )
            except (
                InvalidBars
            ) as error:  # whoever sent the file knows its name, not where it was kept meanwhile
                raise InvalidBars(error.message.replace(str(path), path.name), error.errors) from None
            report = replace(imported.report, file=path.name)
            source = f"file {path.name}"
            manifest = self.market.save(imported.bars, source=source, notes=report.notes())
            return manifest, report.lines()

        async with self._importing:
            return await asyncio.to_thread(work)

    def count(
        self, manifest: DatasetManifest, timeframe: Timeframe, start: str | None, end: str | None
    ) -> tuple[int, int]:
        """Bars of ``timeframe`` before ``start``, and from there to ``end`` (a date includes its whole day); blocks."""
        time_T = self._time(manifest, timeframe)
        first = 0 if start is None else int(np.searchsorted(time_T, parse_time(start)))
        last = len(time_T)
        if end is not None:
            stop = parse_time(end)
            stop += _DAY_US if stop % _DAY_US == 0 else 1
            last = int(np.searchsorted(time_T, stop))
        return first, max(0, last - first)

    def _time(self, manifest: DatasetManifest, timeframe: Timeframe) -> IntArray:
        key = (manifest.artifact, timeframe)
        with self._lock:
            if key in self._times:
                self._times.move_to_end(key)
                return self._times[key]
        time_T = load_dataset(self._artifacts, manifest.artifact, timeframe).time
        with self._lock:
            self._times[key] = time_T
            while len(self._times) > _REMEMBERED:
                self._times.popitem(last=False)
        return time_T
