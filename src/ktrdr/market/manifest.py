"""Datasets by content: a manifest names yearly segments by digest; whoever has the manifest's digest has the data.

A segment is a Parquet artifact of one UTC year. Two digests guard it: that of the file's bytes (its name in the
artifact store) and that of the canonical arrays inside (which survives another Parquet writer).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
import polars as pl

from ktrdr.artifacts import ArtifactStore, check_digest
from ktrdr.bars import Bars
from ktrdr.errors import CorruptArtifact, InvalidBars, InvalidInput
from ktrdr.market.frames import bars_from_frame, frame_of
from ktrdr.market.resample import resample
from ktrdr.market.symbols import check_symbol
from ktrdr.timeframe import Timeframe

__all__ = [
    "DatasetManifest",
    "Segment",
    "dataset_artifacts",
    "load_dataset",
    "read_manifest",
    "write_dataset",
]

_FORMAT = "ktrdr-dataset/1"


@dataclass(frozen=True, slots=True)
class Segment:
    """The bars of one UTC year. ``digest`` is over the arrays, ``file`` over the Parquet file's bytes."""

    year: int
    rows: int
    digest: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest:
    """What a stored dataset is.

    ``digest`` is its identity: SHA-256 over timeframe, calendar, presence of quotes and the segments' years, rows
    and array digests; so it does not depend on symbol, source, file format or the order of appends. ``start`` and
    ``end`` are the open times of the first and last bar. ``artifact`` is the SHA-256 of the manifest's JSON file.
    """

    symbol: str
    timeframe: Timeframe
    calendar: str
    source: str
    licence: str
    rows: int
    start: datetime
    end: datetime
    digest: str
    segments: tuple[Segment, ...]
    artifact: str
    quotes: bool = False
    notes: tuple[str, ...] = ()


def dataset_artifacts(manifest: DatasetManifest) -> list[str]:
    """The digests that must be at hand to load the dataset: the manifest's own, then the segments' files."""
    return [manifest.artifact, *(segment.file for segment in manifest.segments)]


def write_dataset(
    artifacts: ArtifactStore,
    bars: Bars,
    *,
    source: str,
    licence: str,
    notes: Sequence[str] = (),
    known: DatasetManifest | None = None,
) -> DatasetManifest:
    """Store bars as yearly segments and their manifest.

    Parameters
    ----------
    known
        A manifest whose segment files are used again where a year's arrays are equal; so an append writes the
        years it touches and nothing else.

    Raises
    ------
    InvalidInput
        If there are no bars or the symbol is no acceptable name.
    """
    check_symbol(bars.symbol)
    if not len(bars):
        raise InvalidInput(f"There are no bars of {bars.symbol} {bars.timeframe} to store.")
    files = {segment.digest: segment.file for segment in known.segments} if known is not None else {}
    segments = []
    for year, part in _by_year(bars):
        digest = part.digest()
        file = files.get(digest)
        if file is None or not artifacts.has(file):
            file = artifacts.put(_parquet_of(part))
        segments.append(Segment(year, len(part), digest, file))
    content = {
        "format": _FORMAT,
        "symbol": bars.symbol,
        "timeframe": bars.timeframe.value,
        "calendar": bars.calendar,
        "source": source,
        "licence": licence,
        "notes": list(notes),
        "rows": len(bars),
        "start": bars.start.isoformat(),
        "end": bars.end.isoformat(),
        "quotes": bars.quotes is not None,
        "digest": _identity(bars.timeframe, bars.calendar, bars.quotes is not None, segments),
        "segments": [asdict(segment) for segment in segments],
    }
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    return read_manifest(artifacts, artifacts.put(text.encode()))


def read_manifest(artifacts: ArtifactStore, artifact: str) -> DatasetManifest:
    """The manifest stored under a digest.

    Raises
    ------
    NotFound
        If there is no such artifact.
    CorruptArtifact
        If it is no dataset manifest, or its identity does not follow from its segments.
    """
    try:
        content = json.loads(artifacts.read(artifact))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is '{content['format']}'")
        manifest = DatasetManifest(
            symbol=check_symbol(content["symbol"]),
            timeframe=Timeframe.parse(content["timeframe"]),
            calendar=str(content["calendar"]),
            source=str(content["source"]),
            licence=str(content["licence"]),
            rows=int(content["rows"]),
            start=datetime.fromisoformat(content["start"]),
            end=datetime.fromisoformat(content["end"]),
            digest=check_digest(content["digest"]),
            segments=tuple(Segment(**segment) for segment in content["segments"]),
            artifact=artifact,
            quotes=bool(content["quotes"]),
            notes=tuple(content["notes"]),
        )
    except (ValueError, KeyError, TypeError, InvalidInput) as error:
        raise CorruptArtifact(
            f"Artifact {artifact} is not a dataset manifest ({error}). Import the data again."
        ) from None
    identity = _identity(manifest.timeframe, manifest.calendar, manifest.quotes, manifest.segments)
    if identity != manifest.digest:
        raise CorruptArtifact(
            f"The manifest {artifact} of {manifest.symbol} {manifest.timeframe} claims identity "
            f"{manifest.digest}, but its segments give {identity}. Import the data again."
        )
    return manifest


def load_dataset(
    artifacts: ArtifactStore,
    manifest_artifact: str,
    timeframe: Timeframe | None = None,
    symbol: str | None = None,
) -> Bars:
    """The bars of a dataset, every digest verified.

    Parameters
    ----------
    artifacts
        Where the manifest and the segments are, or are fetched from.
    manifest_artifact
        The digest of the manifest's JSON file.
    timeframe
        Resample to this one where it is longer than the dataset's.
    symbol
        Name the bars so instead of as in the manifest.

    Raises
    ------
    NotFound
        If an artifact is missing.
    CorruptArtifact
        If bytes, arrays or manifest do not match their digests.
    InvalidInput
        If the dataset cannot be resampled to ``timeframe``.
    """
    manifest = read_manifest(artifacts, manifest_artifact)
    frames = [_read_segment(artifacts, manifest, segment) for segment in manifest.segments]
    bars = bars_from_frame(
        pl.concat(frames),
        symbol=manifest.symbol if symbol is None else symbol,
        timeframe=manifest.timeframe,
        calendar=manifest.calendar,
    )
    return bars if timeframe is None else resample(bars, timeframe)


def _read_segment(artifacts: ArtifactStore, manifest: DatasetManifest, segment: Segment) -> pl.DataFrame:
    path = artifacts.path(segment.file)
    name = f"Segment {segment.year} of {manifest.symbol} {manifest.timeframe} ({segment.file})"
    try:
        frame = pl.read_parquet(path)
        part = bars_from_frame(
            frame, symbol=manifest.symbol, timeframe=manifest.timeframe, calendar=manifest.calendar
        )
    except (pl.exceptions.PolarsError, InvalidBars, OSError) as error:
        raise CorruptArtifact(f"{name} is not readable: {error}. Import the data again.") from None
    if (seen := part.digest()) != segment.digest:
        raise CorruptArtifact(
            f"{name} holds arrays of digest {seen}, expected {segment.digest}. Import the data again."
        )
    return frame


def _identity(timeframe: Timeframe, calendar: str, quotes: bool, segments: Sequence[Segment]) -> str:
    content = {
        "timeframe": timeframe.value,
        "calendar": calendar,
        "quotes": quotes,
        "segments": [[segment.year, segment.rows, segment.digest] for segment in segments],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _by_year(bars: Bars) -> list[tuple[int, Bars]]:
    """The bars of each UTC year that has any, in order."""
    year_T = bars.time.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    years, first = np.unique(year_T, return_index=True)
    last = [*first[1:], len(bars)]
    return [(int(year), bars[a:b]) for year, a, b in zip(years, first, last, strict=True)]


def _parquet_of(bars: Bars) -> bytes:
    buffer = io.BytesIO()
    frame_of(bars).write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()
