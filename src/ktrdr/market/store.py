"""The market store: which dataset a symbol and timeframe stand for on this machine.

The data themselves are artifacts; the store keeps one small pointer file per symbol and timeframe under its root
(``EURUSD/1h.json``), replaced atomically. Several processes may use it at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.errors import Conflict, CorruptArtifact, InvalidInput, NotFound
from ktrdr.market.frames import concatenate
from ktrdr.market.manifest import DatasetManifest, load_dataset, read_manifest, write_dataset
from ktrdr.market.resample import can_resample
from ktrdr.market.symbols import check_symbol
from ktrdr.private import private_file, private_folder
from ktrdr.timeframe import Timeframe

__all__ = ["MarketStore"]

_LOCK = ".lock"


class MarketStore:
    """Named datasets over an artifact store.

    Laws
    ----
    - ``save`` then ``load`` gives bars of the same digest; saving the same bars again changes nothing.
    - A reader sees the old dataset or the new one, never a mixture; writers of one root take turns.
    - A symbol is a name (see ``check_symbol``), never a path; nothing outside ``root`` is read or written.
    - ``delete`` removes the name only. The artifacts stay: results may refer to them, and what nothing refers to
      is collected by the owner of the artifact store.
    """

    def __init__(self, root: Path, artifacts: FileArtifactStore) -> None:
        self.root = root
        self.artifacts = artifacts

    def save(
        self, bars: Bars, *, source: str = "", licence: str = "", notes: Sequence[str] = ()
    ) -> DatasetManifest:
        """Store bars under their symbol and timeframe, in place of what was there.

        Parameters
        ----------
        source, licence
            Where the data come from and under which terms; kept in the manifest.
        notes
            What was done to the data, for example by the importer's policy; kept in the manifest.

        Raises
        ------
        InvalidInput
            If there are no bars, or the symbol is no acceptable name or differs from a stored one in case only.
        """
        check_symbol(bars.symbol)
        with self._writing():
            return self._save(bars, source, licence, notes)

    def append(self, bars: Bars) -> DatasetManifest:
        """Add newer bars to a stored dataset; only the years they touch are written.

        Bars that are stored already must be equal to the stored ones.

        Raises
        ------
        NotFound
            If nothing is stored under this symbol and timeframe.
        Conflict
            If an overlapping bar differs, or bars would be inserted between stored ones.
        """
        with self._writing():
            old = self.manifest(bars.symbol, bars.timeframe)
            stored = load_dataset(self.artifacts, old.artifact)
            fresh = _newer(stored, bars)
            whole = concatenate(stored, fresh) if len(fresh) else stored
            return self._save(whole, old.source, old.licence, old.notes)

    def load(self, symbol: str, timeframe: Timeframe) -> Bars:
        """The stored bars, resampled where only a finer timeframe is stored.

        Raises
        ------
        NotFound
            If neither is stored; the message says what is and how to import.
        CorruptArtifact
            If stored bytes are damaged.
        """
        return load_dataset(self.artifacts, self.resolve(symbol, timeframe).artifact, timeframe)

    def manifest(self, symbol: str, timeframe: Timeframe) -> DatasetManifest:
        """The manifest stored under exactly this symbol and timeframe.

        Raises
        ------
        NotFound
            If there is none.
        """
        found = self._find(symbol, timeframe)
        if found is None:
            raise self._not_found(symbol, timeframe)
        return found

    def resolve(self, symbol: str, timeframe: Timeframe) -> DatasetManifest:
        """The dataset to use for a timeframe: the exact one, else the longest it can be resampled from.

        Raises
        ------
        NotFound
            If there is neither; the message says what is stored and how to import.
        """
        if (exact := self._find(symbol, timeframe)) is not None:
            return exact
        finer = [item for item in reversed(Timeframe) if item.seconds < timeframe.seconds]
        for candidate in finer:
            found = self._find(symbol, candidate)
            if found is not None and can_resample(found.calendar, candidate, timeframe):
                return found
        raise self._not_found(symbol, timeframe)

    def stamp(self, symbol: str) -> tuple[int, int] | None:
        """Changes whenever a dataset of the symbol is stored or forgotten; None if there is none."""
        try:
            found = os.stat(self.root / check_symbol(symbol))
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def list(self) -> tuple[DatasetManifest, ...]:
        """Every stored dataset, by symbol, then from short to long timeframe."""
        order = {timeframe.value: index for index, timeframe in enumerate(Timeframe)}
        names = [(file.parent.name, file.stem) for file in self.root.glob("*/*.json") if file.stem in order]
        names.sort(key=lambda name: (name[0], order[name[1]]))
        found = (self._find(symbol, Timeframe(timeframe)) for symbol, timeframe in names)
        return tuple(manifest for manifest in found if manifest is not None)

    def delete(self, symbol: str, timeframe: Timeframe) -> None:
        """Forget the dataset stored under this symbol and timeframe.

        Raises
        ------
        NotFound
            If there is none.
        """
        with self._writing():
            pointer = self._pointer(symbol, timeframe)
            if not pointer.is_file():
                raise self._not_found(symbol, timeframe)
            pointer.unlink()
            if not any(pointer.parent.iterdir()):
                pointer.parent.rmdir()

    def _save(self, bars: Bars, source: str, licence: str, notes: Sequence[str]) -> DatasetManifest:
        for folder in self.root.iterdir():
            if folder.name != bars.symbol and folder.name.casefold() == bars.symbol.casefold():
                raise InvalidInput(
                    f"'{bars.symbol}' is already stored as '{folder.name}'; use that spelling."
                )
        known = self._find(bars.symbol, bars.timeframe)
        manifest = write_dataset(
            self.artifacts, bars, source=source, licence=licence, notes=notes, known=known
        )
        if known is None or known.artifact != manifest.artifact:
            pointer = self._pointer(bars.symbol, bars.timeframe)
            _replace(pointer, json.dumps({"manifest": manifest.artifact}))
        return manifest

    def _pointer(self, symbol: str, timeframe: Timeframe) -> Path:
        return self.root / check_symbol(symbol) / f"{timeframe.value}.json"

    def _find(self, symbol: str, timeframe: Timeframe) -> DatasetManifest | None:
        pointer = self._pointer(symbol, timeframe)
        try:
            artifact = json.loads(pointer.read_text())["manifest"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise CorruptArtifact(
                f"The pointer file {pointer} is damaged. Delete it and import the data again."
            ) from None
        manifest = read_manifest(self.artifacts, artifact)
        # A file system that ignores case finds 'aapl' where 'AAPL' is stored; the names still differ.
        return manifest if manifest.symbol == symbol else None

    def _not_found(self, symbol: str, timeframe: Timeframe) -> NotFound:
        stored = sorted((file.parent.name, file.stem) for file in self.root.glob("*/*.json"))
        own = [name for folder, name in stored if folder == symbol]
        if own:
            there = f"Stored for {symbol}: {', '.join(own)}"
        else:
            symbols = sorted({folder for folder, _ in stored})
            there = f"Stored symbols: {', '.join(symbols[:20]) or 'none'}" + (
                f" and {len(symbols) - 20} more" if len(symbols) > 20 else ""
            )
        return NotFound(
            "market data",
            f"{symbol} {timeframe.value}",
            valid=[f"{folder} {name}" for folder, name in stored],
            hint=f"{there}. Import it: ktrdr data import FILE --symbol {symbol} --timeframe {timeframe.value}",
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, over all processes; the system releases the lock when a process dies."""
        private_folder(self.root)
        with open(self.root / _LOCK, "w", opener=private_file) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _newer(stored: Bars, bars: Bars) -> Bars:
    """The bars after the stored ones, once the overlap is proved equal."""
    if (stored.quotes is None) != (bars.quotes is None) or stored.calendar != bars.calendar:
        raise Conflict(
            f"{bars.symbol} {bars.timeframe} is stored with calendar {stored.calendar} and "
            f"{'without' if stored.quotes is None else 'with'} bid and ask; the new bars differ in that. "
            "Import the whole file instead."
        )
    cut = int(np.searchsorted(bars.time, stored.time[-1], side="right"))
    overlap = bars[:cut]
    if cut:
        first = int(np.searchsorted(stored.time, overlap.time[0]))
        if stored[first:].digest() != overlap.digest():
            raise Conflict(
                f"The new {bars.symbol} {bars.timeframe} bars overlap the stored ones from {overlap.start} to "
                f"{overlap.end} and differ there. Import the whole file to replace the dataset."
            )
    return bars[cut:]


def _replace(file: Path, text: str) -> None:
    """Write beside, sync, rename: a reader finds the old text or the new one, also after a power cut."""
    private_folder(file.parent)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        Path(temporary).unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
