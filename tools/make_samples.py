"""Make the bundled sample data, once, from the wheels of two public packages.

Usage::

    python tools/make_samples.py ARCH_WHEEL GYM_ANYTRADING_WHEEL

Writes Parquet files into ``src/ktrdr/market/sample_data/``; ``SOURCES.md`` beside them says where they come from.
The wheels are read as archives; nothing in them is executed.
"""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from pathlib import Path

import polars as pl

from ktrdr.bars import Bars
from ktrdr.market.frames import bars_from_frame, frame_of
from ktrdr.timeframe import Timeframe

TARGET = Path(__file__).resolve().parent.parent / "src" / "ktrdr" / "market" / "sample_data"
COLUMNS = ("open", "high", "low", "close", "volume")


def index_bars(wheel: Path, symbol: str) -> Bars:
    """Daily bars of an index from the ``arch`` wheel: the unadjusted prices, stamped with the session's date."""
    name = symbol.lower()
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(f"arch/data/{name}/{name}.csv.gz"))
    frame = pl.read_csv(io.BytesIO(text))
    time = pl.col("Date").str.to_date("%m/%d/%Y").cast(pl.Datetime("us"))
    return _bars(frame, time, symbol, Timeframe.D1, "XNYS")


def forex_bars(wheel: Path) -> Bars:
    """Hourly EURUSD bars of 2017 from the ``gym-anytrading`` wheel; its stamps are UTC (see SOURCES.md)."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("gym_anytrading/datasets/data/FOREX_EURUSD_1H_ASK.csv")
    time = pl.col("Time").str.strptime(pl.Datetime("us"), "%d.%m.%Y %H:%M:%S%.3f")
    return _bars(pl.read_csv(io.BytesIO(text)), time, "EURUSD", Timeframe.H1, "24/5")


def _bars(frame: pl.DataFrame, time: pl.Expr, symbol: str, timeframe: Timeframe, calendar: str) -> Bars:
    columns = [pl.col(name.title()).cast(pl.Float64).alias(name) for name in COLUMNS]
    made = frame.select(time.cast(pl.Int64).alias("time"), *columns)
    return bars_from_frame(made, symbol=symbol, timeframe=timeframe, calendar=calendar)


def write(bars: Bars) -> Path:
    """Write one sample file: the columns of ``frame_of``, integral columns as integers."""
    frame = frame_of(bars)
    if bool((frame["volume"] == frame["volume"].round(0)).all()):
        frame = frame.with_columns(pl.col("volume").cast(pl.Int64))
    file = TARGET / f"{bars.symbol}_{bars.timeframe.value}.parquet"
    frame.write_parquet(file, compression="zstd", compression_level=19, statistics=False)
    return file


def main(arguments: list[str]) -> int:
    """Convert all three; returns the exit code."""
    if len(arguments) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    arch, gym = (Path(argument) for argument in arguments)
    TARGET.mkdir(parents=True, exist_ok=True)
    for bars in (index_bars(arch, "SP500"), index_bars(arch, "NASDAQ"), forex_bars(gym)):
        file = write(bars)
        sys.stdout.write(f"{file.name}: {bars!r}, {file.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
