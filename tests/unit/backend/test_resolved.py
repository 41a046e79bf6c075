"""What a request came to is remembered exactly as long as the data that it names stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.submission.resolved import Resolved, Stamp
from ktrdr.market.samples import load_sample, sample_list
from ktrdr.market.store import MarketStore

SECOND = 1_000_000_000


def test_remembered_until_the_data_changes() -> None:
    stamps: dict[str, Stamp | None] = {"A": (1, 0), "B": (2, 0)}
    known = Resolved[str](stamps.get, clock=lambda: 10 * SECOND)
    known.put("request", dict(stamps), "work")
    known.put("other", {"B": (2, 0)}, "B's")
    assert known.get("request") == "work"
    stamps["A"] = (1, 5)
    assert known.get("request") is None
    stamps["A"] = (1, 0)
    assert known.get("request") is None, "it was forgotten"
    assert known.get("other") == "B's"


@pytest.mark.parametrize("stamp", [None, (1, 9 * SECOND), (1, 11 * SECOND)])
def test_nothing_is_remembered_of_data_that_changed_a_moment_ago(stamp: Stamp | None) -> None:
    known = Resolved[str](lambda _: stamp, clock=lambda: 10 * SECOND)
    known.put("request", {"A": stamp}, "work")
    assert known.get("request") is None


def test_so_many_are_remembered() -> None:
    known = Resolved[int](lambda _: (1, 0), clock=lambda: 10 * SECOND)
    for number in range(70):
        known.put(number, {"A": (1, 0)}, number)
        assert known.get(0) == 0, "used again and again"
    assert [known.get(number) for number in (1, 6, 7, 8, 69)] == [None, None, 7, 8, 69]


def test_the_stamp_tells_every_change_of_a_symbols_data(tmp_path: Path) -> None:
    market = MarketStore(tmp_path / "data", FileArtifactStore(tmp_path / "artifacts"))
    (symbol, timeframe), *_ = sample_list()
    bars, seen = load_sample(symbol, timeframe), [market.stamp(symbol)]
    for number in (100, 200):
        market.save(bars[:number])
        seen.append(market.stamp(symbol))
    market.delete(symbol, timeframe)
    seen.append(market.stamp(symbol))
    assert (seen[0], seen[-1]) == (None, None)
    assert seen[1] is not None
    assert seen[1] != seen[2]
