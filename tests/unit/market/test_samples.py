"""The bundled data: present, plausible, licensed, and installed without overwriting anybody's own."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.errors import NotFound
from ktrdr.market import MarketStore, import_file, install_samples, load_sample, sample_list
from ktrdr.market.suspicions import suspicions
from ktrdr.timeframe import Timeframe
from support.market_bars import stamps, walk


def test_the_list() -> None:
    assert sample_list() == (("SP500", Timeframe.D1), ("NASDAQ", Timeframe.D1), ("EURUSD", Timeframe.H1))


@pytest.mark.parametrize(
    ("symbol", "timeframe", "rows", "first", "last", "calendar"),
    [
        ("SP500", "1d", 5031, ("1999-01-04", 1228.099976), ("2018-12-31", 2506.850098), "XNYS"),
        ("NASDAQ", "1d", 5031, ("1999-01-04", 2208.050049), ("2018-12-31", 6635.279785), "XNYS"),
        ("EURUSD", "1h", 6225, ("2017-01-01", 1.05227), ("2017-12-29", 1.20075), "24/5"),
    ],
)
def test_each_sample_is_what_its_source_says(
    symbol: str, timeframe: str, rows: int, first: tuple[str, float], last: tuple[str, float], calendar: str
) -> None:
    bars = load_sample(symbol, Timeframe(timeframe))
    assert (len(bars), bars.calendar, bars.symbol, bars.timeframe.value) == (
        rows,
        calendar,
        symbol,
        timeframe,
    )
    assert (f"{bars.start:%Y-%m-%d}", bars.close[0]) == first
    assert (f"{bars.end:%Y-%m-%d}", bars.close[-1]) == last
    assert bars.has_volume
    # every session is there; the only gap is Christmas Day in the hourly file
    gaps = [finding for finding in suspicions(bars) if finding.code in ("gap", "unscheduled-bar")]
    assert [finding.places for finding in gaps] == ([("2017-12-25T22:00Z",)] if symbol == "EURUSD" else [])


def test_an_absent_sample() -> None:
    with pytest.raises(
        NotFound, match=r"'SP500 1h'; did you mean 'SP500 1d'\? *\.? *Bundled: SP500 1d, NASDAQ 1d"
    ):
        load_sample("SP500", Timeframe.H1)


def test_installing_is_idempotent_and_keeps_what_is_there(tmp_path: Path) -> None:
    store = MarketStore(tmp_path / "market", FileArtifactStore(tmp_path / "artifacts"))
    own = walk(stamps("XNYS", Timeframe.D1, 10), Timeframe.D1, "XNYS", symbol="NASDAQ")
    kept = store.save(own, source="mine")
    first = install_samples(store)
    assert [(m.symbol, m.timeframe) for m in first] == list(sample_list())
    assert first[1] == kept
    assert first[0].licence == "NCSA"
    assert first[2].source.startswith("Python package gym-anytrading")
    files_before = sorted((file.name, file.stat().st_mtime_ns) for file in tmp_path.rglob("*.json"))
    assert install_samples(store) == first
    assert sorted((file.name, file.stat().st_mtime_ns) for file in tmp_path.rglob("*.json")) == files_before
    assert store.load("SP500", Timeframe.D1).digest() == load_sample("SP500", Timeframe.D1).digest()


def test_each_file_is_named_with_source_and_licence() -> None:
    folder = files("ktrdr.market") / "sample_data"
    text = (folder / "SOURCES.md").read_text()
    names = [item.name for item in folder.iterdir() if item.name.endswith(".parquet")]
    assert sorted(names) == ["EURUSD_1h.parquet", "NASDAQ_1d.parquet", "SP500_1d.parquet"]
    assert all(f"`{name}`" in text for name in names)
    assert "University of Illinois/NCSA" in text
    assert "Copyright (c) 2017 Kevin Sheppard" in text
    assert "Copyright (c) 2019 Mohammad Amin Haghpanah" in text


def test_the_sample_files_pass_the_importer() -> None:
    folder = Path(str(files("ktrdr.market") / "sample_data"))
    for symbol, timeframe in sample_list():
        imported = import_file(
            folder / f"{symbol}_{timeframe.value}.parquet", symbol=symbol, timeframe=timeframe
        )
        assert imported.bars.digest() == load_sample(symbol, timeframe).digest()
        assert imported.bars.calendar == load_sample(symbol, timeframe).calendar
        assert np.isfinite(imported.bars.close).all()
