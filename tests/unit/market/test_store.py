"""Datasets by content and the store of their names: identity, damage, confinement, several writers."""

import json
import multiprocessing
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars, parse_time
from ktrdr.errors import Conflict, CorruptArtifact, InvalidInput, NotFound
from ktrdr.market import MarketStore, check_symbol, dataset_artifacts, load_dataset, read_manifest, resample
from ktrdr.timeframe import Timeframe
from support.market_bars import any_bars, stamps, walk, with_quotes
from support.market_writers import append_in_turn, daily


@pytest.fixture
def store(tmp_path: Path) -> MarketStore:
    return MarketStore(tmp_path / "market", FileArtifactStore(tmp_path / "artifacts"))


def test_saved_and_loaded_are_equal(store: MarketStore) -> None:
    bars = with_quotes(daily())
    manifest = store.save(bars, source="a vendor", licence="MIT", notes=["two rows dropped"])
    loaded = store.load("SPY", Timeframe.D1)
    assert loaded.digest() == bars.digest()
    assert (loaded.symbol, loaded.timeframe, loaded.calendar) == ("SPY", Timeframe.D1, "XNYS")
    assert (manifest.rows, manifest.start, manifest.end) == (600, bars.start, bars.end)
    assert (manifest.source, manifest.licence, manifest.notes) == ("a vendor", "MIT", ("two rows dropped",))
    assert manifest.quotes
    assert [(s.year, s.rows) for s in manifest.segments] == [(2017, 260), (2018, 261), (2019, 79)]
    assert store.manifest("SPY", Timeframe.D1) == manifest
    assert store.list() == (manifest,)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bars=any_bars((Timeframe.M1, Timeframe.H1, Timeframe.D1, Timeframe.W1)))
def test_any_bars_survive_the_store(store: MarketStore, bars: Bars) -> None:
    manifest = store.save(bars)
    loaded = store.load(bars.symbol, bars.timeframe)
    assert loaded.digest() == bars.digest()
    assert loaded.calendar == bars.calendar
    assert sum(segment.rows for segment in manifest.segments) == len(bars)


def test_the_identity_depends_on_content_alone(store: MarketStore) -> None:
    bars = daily()
    first = store.save(bars, source="one")
    other = store.save(bars.with_symbol("QQQ"), source="two", licence="MIT")
    assert first.digest == other.digest
    assert first.artifact != other.artifact
    assert [s.file for s in first.segments] == [s.file for s in other.segments]
    changed = bars.volume.copy()
    changed[-1] += 1
    for different in (
        replace(bars, volume=changed),
        bars[:-1],
        replace(bars, calendar="24/7"),
        with_quotes(bars),
    ):
        assert store.save(different).digest != first.digest


def test_saving_again_changes_nothing(store: MarketStore) -> None:
    first = store.save(daily())
    pointer = store.root / "SPY" / "1d.json"
    before = pointer.stat().st_mtime_ns
    assert store.save(daily()) == first
    assert pointer.stat().st_mtime_ns == before


def test_an_append_writes_only_the_years_it_touches(store: MarketStore) -> None:
    bars = daily(600)
    old = store.save(bars[:550], source="vendor")
    new = store.append(bars[540:])
    assert store.load("SPY", Timeframe.D1).digest() == bars.digest()
    assert new.digest == store.save(bars, source="vendor").digest  # the way of growing leaves no trace
    assert old.segments[:2] == new.segments[:2]
    fresh = set(dataset_artifacts(new)) - set(dataset_artifacts(old))
    assert fresh == {new.artifact, new.segments[2].file}
    assert store.append(bars[590:]) == new


def test_an_append_that_contradicts_is_refused(store: MarketStore) -> None:
    bars = daily(100)
    store.save(bars[:60])
    with pytest.raises(Conflict, match=r"overlap the stored ones from .* and differ there"):
        store.append(daily(100, seed=2)[50:])
    with pytest.raises(Conflict, match="overlap"):
        store.append(bars[:59])  # leaves out the last stored bar
    with pytest.raises(Conflict, match="without bid and ask"):
        store.append(with_quotes(bars)[60:])
    with pytest.raises(Conflict, match="calendar XNYS"):
        store.append(replace(bars, calendar="24/7")[60:])
    with pytest.raises(NotFound, match="No market data named 'QQQ 1d'"):
        store.append(bars.with_symbol("QQQ"))
    assert store.load("SPY", Timeframe.D1).digest() == bars[:60].digest()


def test_a_coarser_timeframe_is_made_from_the_longest_finer_one(store: MarketStore) -> None:
    minutes = walk(stamps("24/5", Timeframe.M1, 3000), Timeframe.M1, "24/5", symbol="EURUSD")
    hours = walk(stamps("24/5", Timeframe.H1, 300), Timeframe.H1, "24/5", symbol="EURUSD")
    four = walk(stamps("24/5", Timeframe.H4, 100), Timeframe.H4, "24/5", symbol="EURUSD")
    for bars in (minutes, hours, four):
        store.save(bars)
    assert store.resolve("EURUSD", Timeframe.H4).timeframe is Timeframe.H4
    assert store.resolve("EURUSD", Timeframe.H2).timeframe is Timeframe.H1
    # Four-hour bars on the UTC grid straddle 17:00 New York: days come from hours.
    assert store.resolve("EURUSD", Timeframe.D1).timeframe is Timeframe.H1
    assert store.resolve("EURUSD", Timeframe.M30).timeframe is Timeframe.M1
    assert store.load("EURUSD", Timeframe.D1).digest() == resample(hours, Timeframe.D1).digest()
    only_days = daily(30)
    store.save(only_days)
    with pytest.raises(NotFound, match=r"No market data named 'SPY 1h'.*Stored for SPY: 1d"):
        store.resolve("SPY", Timeframe.H1)


def test_load_dataset_needs_the_artifacts_alone(store: MarketStore) -> None:
    bars = daily(60)
    manifest = store.save(bars)
    loaded = load_dataset(store.artifacts, manifest.artifact, Timeframe.W1, "RENAMED")
    assert loaded.symbol == "RENAMED"
    assert loaded.digest() == resample(bars, Timeframe.W1).digest()
    assert dataset_artifacts(manifest) == [manifest.artifact, *(s.file for s in manifest.segments)]
    with pytest.raises(InvalidInput, match="cannot be resampled to 1h"):
        load_dataset(store.artifacts, manifest.artifact, Timeframe.H1)
    store.artifacts.delete(manifest.segments[0].file)
    with pytest.raises(NotFound, match="No artifact"):
        load_dataset(store.artifacts, manifest.artifact)


def test_not_found_says_what_is_there_and_how_to_import(store: MarketStore) -> None:
    with pytest.raises(
        NotFound, match=r"Stored symbols: none\. Import it: ktrdr data import FILE --symbol SPX"
    ):
        store.load("SPX", Timeframe.D1)
    for index in range(22):
        store.save(daily(5, symbol=f"S{index:02d}"))
    with pytest.raises(NotFound, match=r"S00, S01, .* and 2 more"):
        store.manifest("SPX", Timeframe.D1)


def test_list_and_delete(store: MarketStore) -> None:
    assert store.list() == ()
    store.save(daily(20))
    store.save(walk(stamps("XNYS", Timeframe.H1, 20), Timeframe.H1, "XNYS", symbol="SPY"))
    store.save(daily(20, symbol="AAPL"))
    (store.root / "SPY" / "notes.json").write_text("{}")
    assert [(m.symbol, m.timeframe.value) for m in store.list()] == [
        ("AAPL", "1d"),
        ("SPY", "1h"),
        ("SPY", "1d"),
    ]
    store.delete("AAPL", Timeframe.D1)
    assert not (store.root / "AAPL").exists()
    store.delete("SPY", Timeframe.D1)
    assert [(m.symbol, m.timeframe.value) for m in store.list()] == [("SPY", "1h")]
    with pytest.raises(NotFound):
        store.delete("SPY", Timeframe.D1)


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        "a b",
        "A\n",
        "A\0",
        "-A",
        ".A",
        "X" * 33,
        "ÄÖ",
        "EUR/USD",
        "%2e%2e",
    ],
)
def test_a_symbol_is_never_a_path(store: MarketStore, symbol: str) -> None:
    with pytest.raises(InvalidInput, match="is not a symbol name"):
        check_symbol(symbol)
    with pytest.raises(InvalidInput):
        store.save(daily(5).with_symbol(symbol))
    for act in (store.load, store.manifest, store.resolve, store.delete):
        with pytest.raises(InvalidInput):
            act(symbol, Timeframe.D1)


@pytest.mark.parametrize("symbol", ["EURUSD", "BRK.B", "^GSPC", "EURUSD=X", "ES_F", "BTC-USD", "a", "7203.T"])
def test_usual_symbols_are_names(symbol: str) -> None:
    assert check_symbol(symbol) == symbol


def test_a_refused_symbol_gets_a_suggestion() -> None:
    with pytest.raises(InvalidInput, match="For example 'EURUSD'"):
        check_symbol("EUR/USD")


def test_two_spellings_of_a_symbol_do_not_live_side_by_side(store: MarketStore) -> None:
    store.save(daily(5))
    with pytest.raises(InvalidInput, match="'spy' is already stored as 'SPY'"):
        store.save(daily(5, symbol="spy"))
    # On a file system that ignores case the pointer is found, and still is not spy's.
    (store.root / "spy").mkdir()
    (store.root / "spy" / "1d.json").write_text((store.root / "SPY" / "1d.json").read_text())
    with pytest.raises(NotFound):
        store.manifest("spy", Timeframe.D1)


def test_no_bars_are_not_stored(store: MarketStore) -> None:
    with pytest.raises(InvalidInput, match="no bars of SPY 1d to store"):
        store.save(daily(5)[:0])
    assert store.list() == ()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"manifest": "../../x"}', "not json"])
def test_a_damaged_pointer_is_told(store: MarketStore, text: str) -> None:
    store.save(daily(5))
    (store.root / "SPY" / "1d.json").write_text(text)
    with pytest.raises((CorruptArtifact, InvalidInput), match=r"damaged|not a SHA-256 digest"):
        store.load("SPY", Timeframe.D1)


def edited(store: MarketStore, **changes: object) -> str:
    """A manifest that was tampered with, stored under its own right digest."""
    manifest = store.save(daily(300))
    content = json.loads(store.artifacts.read(manifest.artifact)) | changes
    return store.artifacts.put(json.dumps(content).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other/2"},
        {"symbol": "../x"},
        {"timeframe": "3h"},
        {"segments": [{"year": 2017}]},
        {"segments": []},
        {"digest": "0" * 64},
        {"digest": "short"},
        {"start": "yesterday"},
        {"calendar": "24/7"},
        {"quotes": True},
    ],
)
def test_a_tampered_manifest_is_not_believed(store: MarketStore, changes: dict[str, object]) -> None:
    with pytest.raises(CorruptArtifact, match=r"not a dataset manifest|claims identity"):
        read_manifest(store.artifacts, edited(store, **changes))


def test_something_else_is_no_manifest(store: MarketStore) -> None:
    for content in (b"\xff\xfe", b"[]", b"7", b"{}"):
        with pytest.raises(CorruptArtifact, match="is not a dataset manifest"):
            read_manifest(store.artifacts, store.artifacts.put(content))


def test_segments_are_verified_by_their_arrays(store: MarketStore) -> None:
    manifest = store.save(daily(300))
    content = json.loads(store.artifacts.read(manifest.artifact))
    swapped = json.loads(json.dumps(content))
    swapped["segments"][0]["file"], swapped["segments"][1]["file"] = (
        swapped["segments"][1]["file"],
        swapped["segments"][0]["file"],
    )
    with pytest.raises(CorruptArtifact, match=r"Segment 2017 of SPY 1d .* holds arrays of digest"):
        load_dataset(store.artifacts, store.artifacts.put(json.dumps(swapped).encode()))
    content["segments"][0]["file"] = store.artifacts.put(b"PAR1 this is no Parquet PAR1")
    with pytest.raises(CorruptArtifact, match=r"Segment 2017 of SPY 1d .* is not readable"):
        load_dataset(store.artifacts, store.artifacts.put(json.dumps(content).encode()))


def test_a_damaged_segment_file_is_not_loaded(store: MarketStore) -> None:
    manifest = store.save(daily(300))
    file = store.artifacts.location(manifest.segments[0].file)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CorruptArtifact, match="is damaged on disk"):
        store.load("SPY", Timeframe.D1)


def test_a_lost_segment_file_is_written_again(store: MarketStore) -> None:
    manifest = store.save(daily(300))
    store.artifacts.delete(manifest.segments[1].file)
    store.save(daily(300))
    assert store.load("SPY", Timeframe.D1).digest() == daily(300).digest()


@pytest.mark.integration
def test_writers_in_several_processes_lose_nothing(store: MarketStore) -> None:
    store.save(daily(400)[:100])
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    arguments = [(str(store.root), str(store.artifacts.root), index, barrier) for index in range(3)]
    children = [context.Process(target=append_in_turn, args=each) for each in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert store.load("SPY", Timeframe.D1).digest() == daily(400).digest()
    assert [m.symbol for m in store.list()] == ["OWN0", "OWN1", "OWN2", "SPY"]
    assert list(store.root.rglob(".part-*")) == []


def test_a_reader_never_sees_a_torn_pointer(store: MarketStore) -> None:
    versions = [store.save(daily(20, seed=seed)) for seed in (1, 2)]

    def write() -> None:
        for turn in range(150):
            store.save(daily(20, seed=1 + turn % 2))

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        assert store.manifest("SPY", Timeframe.D1) in versions
    writer.join()


def test_a_stamp_before_1970_has_its_own_year(store: MarketStore) -> None:
    time = np.array([parse_time(text) for text in ("1969-12-30", "1969-12-31", "1970-01-02")])
    manifest = store.save(walk(time, Timeframe.D1, "24/7", symbol="OLD"))
    assert [(s.year, s.rows) for s in manifest.segments] == [(1969, 2), (1970, 1)]
