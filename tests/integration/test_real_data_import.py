"""Real files of several vendors go through the importer, the store, resampling and alignment."""

from pathlib import Path

import numpy as np
import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.market import Imported, MarketStore, align_to, import_file, known_at, resample
from ktrdr.timeframe import Timeframe

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data beside the repository ({DATA})"),
]


def load(name: str, symbol: str, timeframe: str) -> Imported:
    file = DATA / name
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    return import_file(file, symbol=symbol, timeframe=Timeframe(timeframe))


@pytest.mark.parametrize(
    ("name", "symbol", "timeframe", "rows", "calendar", "warnings"),
    [
        ("EURUSD_1h_bidask.csv.gz", "EURUSD", "1h", 74_439, "24/5", {"gap": 26}),
        ("SPY_1d.csv.gz", "SPY", "1d", 5_849, "XNYS", {"spike": 1}),
        ("SPY_1h.csv.gz", "SPY", "1h", 40_832, "XNYS", {"short-session": 1, "spike": 61}),
        ("SP500_1d.csv.gz", "SP500", "1d", 5_031, "XNYS", {}),
        ("AAPL_1d_raw.csv.gz", "AAPL", "1d", 5_849, "XNYS", {"spike": 3, "split-like-jump": 5}),
    ],
)
def test_every_row_of_a_real_file_is_kept(
    name: str, symbol: str, timeframe: str, rows: int, calendar: str, warnings: dict[str, int]
) -> None:
    imported = load(name, symbol, timeframe)
    assert len(imported.bars) == imported.report.rows_read == rows
    assert imported.report.calendar == calendar
    assert {finding.code: finding.count for finding in imported.report.warnings} == warnings
    assert imported.report.notes() == ()


def test_raw_prices_warn_of_every_split() -> None:
    report = load("AAPL_1d_raw.csv.gz", "AAPL", "1d").report
    (jumps,) = [finding for finding in report.warnings if finding.code == "split-like-jump"]
    # 2000-09-29 was no split: the price halved overnight.
    assert jumps.places == ("2000-06-21", "2000-09-29", "2005-02-28", "2014-06-09", "2020-08-31")


def test_hours_make_the_days_that_the_vendor_sells() -> None:
    hours, days = load("SPY_1h.csv.gz", "SPY", "1h").bars, load("SPY_1d.csv.gz", "SPY", "1d").bars
    made = resample(hours, Timeframe.D1)
    assert made.time.tolist() == days.time.tolist()
    agree = np.isclose(made.close, days.close, rtol=0.002)
    assert agree.mean() > 0.99  # the vendor's daily close is the official one, not the last trade
    assert known_at(made).tolist() == known_at(days).tolist()


def test_bid_and_ask_are_kept_through_store_and_resampling(tmp_path: Path) -> None:
    bars = load("EURUSD_1h_bidask.csv.gz", "EURUSD", "1h").bars
    assert bars.quotes is not None
    np.testing.assert_allclose(bars.close, (bars.quotes.bid_close + bars.quotes.ask_close) / 2, rtol=0)
    store = MarketStore(tmp_path / "market", FileArtifactStore(tmp_path / "artifacts"))
    manifest = store.save(bars)
    assert [segment.year for segment in manifest.segments] == list(range(2007, 2019))
    assert store.load("EURUSD", Timeframe.H1).digest() == bars.digest()
    days = store.load("EURUSD", Timeframe.D1)
    assert days.quotes is not None
    # 12 years of 5 days a week; each begins at 17:00 in New York, 21:00 or 22:00 UTC
    assert 3_100 < len(days) < 3_140
    assert set(days.time // 3_600_000_000 % 24) == {21, 22}
    row = align_to(bars, days)
    visible = row >= 0
    assert (known_at(days)[row[visible]] <= known_at(bars)[visible]).all()
    assert row[-1] == len(days) - 1
