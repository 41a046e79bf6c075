"""What the children of the store's tests do; importable by name, so that a spawned process finds it."""

from __future__ import annotations

from multiprocessing.synchronize import Barrier
from pathlib import Path

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.errors import Conflict
from ktrdr.market import MarketStore
from ktrdr.timeframe import Timeframe
from support.market_bars import stamps, walk


def daily(count: int = 600, symbol: str = "SPY", seed: int = 1) -> Bars:
    """Weekdays of a random walk on an exchange."""
    return walk(stamps("XNYS", Timeframe.D1, count), Timeframe.D1, "XNYS", symbol=symbol, seed=seed)


def append_in_turn(root: str, artifacts: str, index: int, barrier: Barrier) -> None:
    """Save a symbol of one's own and grow a shared one, together with others."""
    bars = daily(400)
    store = MarketStore(Path(root), FileArtifactStore(Path(artifacts)))
    barrier.wait(60)
    store.save(bars[:100].with_symbol(f"OWN{index}"))
    for end in range(103 + index, 401, 3):
        try:
            store.append(bars[:end])
        except Conflict:  # another process is ahead; what it stored is longer than this piece
            continue
        # A writer that worked from an older dataset would have taken these bars away again.
        assert len(store.load("SPY", Timeframe.D1)) >= end
    store.append(bars)
