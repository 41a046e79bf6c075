"""Bundled real data, so that a first run needs no network: see ``sample_data/SOURCES.md`` for origin and licence."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import polars as pl

from ktrdr.bars import Bars
from ktrdr.errors import NotFound
from ktrdr.market.frames import bars_from_frame
from ktrdr.timeframe import Timeframe

if TYPE_CHECKING:
    from ktrdr.market.manifest import DatasetManifest
    from ktrdr.market.store import MarketStore

__all__ = ["install_samples", "load_sample", "sample_list"]


@dataclass(frozen=True, slots=True)
class _Sample:
    symbol: str
    timeframe: Timeframe
    calendar: str
    source: str
    licence: str


_ARCH = ("Python package arch 8.0.0, arch/data (Kevin Sheppard)", "NCSA")
_GYM = ("Python package gym-anytrading 2.0.0, FOREX_EURUSD_1H_ASK.csv (ask prices)", "MIT")
_SAMPLES = (
    _Sample("SP500", Timeframe.D1, "XNYS", *_ARCH),
    _Sample("NASDAQ", Timeframe.D1, "XNYS", *_ARCH),
    _Sample("EURUSD", Timeframe.H1, "24/5", *_GYM),
)


def sample_list() -> tuple[tuple[str, Timeframe], ...]:
    """Symbol and timeframe of each bundled dataset."""
    return tuple((sample.symbol, sample.timeframe) for sample in _SAMPLES)


def load_sample(symbol: str, timeframe: Timeframe) -> Bars:
    """A bundled dataset.

    Raises
    ------
    NotFound
        If none is bundled under this symbol and timeframe; the message lists them.
    """
    for sample in _SAMPLES:
        if (sample.symbol, sample.timeframe) == (symbol, timeframe):
            return _load(sample)
    names = [f"{sample.symbol} {sample.timeframe.value}" for sample in _SAMPLES]
    raise NotFound(
        "bundled sample", f"{symbol} {timeframe.value}", valid=names, hint=f"Bundled: {', '.join(names)}"
    )


def install_samples(store: MarketStore) -> tuple[DatasetManifest, ...]:
    """Put the bundled data into a store; what is stored already under a sample's name is left as it is.

    Returns
    -------
    The manifests now stored under the samples' names, in the order of ``sample_list``.
    """
    installed = []
    for sample in _SAMPLES:
        try:
            installed.append(store.manifest(sample.symbol, sample.timeframe))
        except NotFound:
            installed.append(store.save(_load(sample), source=sample.source, licence=sample.licence))
    return tuple(installed)


def _load(sample: _Sample) -> Bars:
    name = f"{sample.symbol}_{sample.timeframe.value}.parquet"
    with as_file(files("ktrdr.market") / "sample_data" / name) as path:
        frame = pl.read_parquet(path)
    return bars_from_frame(frame, symbol=sample.symbol, timeframe=sample.timeframe, calendar=sample.calendar)
