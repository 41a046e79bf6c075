"""The notebook face: the forms that bars may have, where they come from, models in folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ktrdr
from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.errors import InvalidInput, InvalidModel, InvalidStrategy, NotFound
from ktrdr.market.store import MarketStore
from ktrdr.operations.progress import Progress
from ktrdr.strategies import Strategy
from ktrdr.timeframe import Timeframe

MakeBars = Callable[..., Bars]


def test_bundled_bars_load_and_resample(tmp_path: Path) -> None:
    home = tmp_path
    assert len(ktrdr.load_bars("SP500", "1d", home=home)) > 5000
    assert len(ktrdr.load_bars("EURUSD", "1h", home=home)) > 6000
    assert 200 < len(ktrdr.load_bars("EURUSD", "1d", home=home)) < 330


def test_the_users_own_store_comes_first(tmp_path: Path, bars_of: MakeBars) -> None:
    home = tmp_path
    store = MarketStore(home / "data", FileArtifactStore(home / "artifacts"))
    store.save(bars_of("SP500"))
    store.save(bars_of("MINE"))
    assert len(ktrdr.load_bars("SP500", home=home)) == 600
    assert len(ktrdr.load_bars("MINE", home=home)) == 600
    assert len(ktrdr.load_bars("NASDAQ", home=home)) > 5000


def test_absent_bars_say_what_there_is(tmp_path: Path, bars_of: MakeBars) -> None:
    home = tmp_path
    with pytest.raises(NotFound, match=r"(?s)'SP50 1d'.*did you mean 'SP500 1d'.*ktrdr data import"):
        ktrdr.load_bars("SP50", "1d", home=home)
    with pytest.raises(NotFound):
        ktrdr.load_bars("SP500", "1h", home=home)
    MarketStore(home / "data", FileArtifactStore(home / "artifacts")).save(bars_of("MINE"))
    with pytest.raises(NotFound, match="MINE"):
        ktrdr.load_bars("ABSENT", "1d", home=home)


def test_strategies_by_name_and_by_path(tmp_path: Path, strategy: Strategy) -> None:
    home = tmp_path
    assert ktrdr.load_strategy("sp500_trend", home=home).name == "sp500_trend"
    file = home / "small.yaml"
    file.write_text(strategy.text)
    assert ktrdr.load_strategy(file, home=home) == strategy
    assert ktrdr.load_strategy(str(file), home=home) == strategy
    (home / "strategies").mkdir()
    (home / "strategies" / "small.yaml").write_text(strategy.text)
    assert ktrdr.load_strategy("small", home=home) == strategy
    with pytest.raises(NotFound, match="did you mean 'sp500_trend'"):
        ktrdr.load_strategy("sp500_trnd", home=home)
    file.write_text(strategy.text.replace("indicators:", "indicatorz:"))
    with pytest.raises(InvalidStrategy, match="indicatorz"):
        ktrdr.load_strategy(file, home=home)


def test_train_backtest_signal_save_load(strategy: Strategy, bars_of: MakeBars, tmp_path: Path) -> None:
    bars, seen = bars_of(), list[Progress]()
    model = ktrdr.train(strategy, bars, progress=seen.append)
    assert seen[-1].items_done == 4
    assert len(model.history) == 4
    assert "recall" in model.metrics["test"]
    assert model.strategy == strategy
    assert repr(model) == f"Model(small, AAA 1d, {model.digest[:12]})"
    result = ktrdr.backtest(model, bars, start="2001-01-01", initial_capital=5_000, progress=seen.append)
    assert result.equity_T[0] == 5_000
    assert result.statistics["total_trades"] == len(result.trades)
    assert model.signal(bars).action in ("BUY", "HOLD", "SELL")
    loaded = ktrdr.load_model(model.save(tmp_path / "model"))
    assert loaded.digest == model.digest
    assert ktrdr.backtest(loaded, bars, start="2001-01-01", initial_capital=5_000).digest() == result.digest()


def test_the_bars_say_which_symbols_and_overrides_are_stored(strategy: Strategy, bars_of: MakeBars) -> None:
    model = ktrdr.train(strategy, bars_of("CCC"), start="2000-06-01", end="2001-06-30", seed=9, epochs=2)
    record = model.bundle.manifest.training
    assert (record.symbols, record.seed, len(model.history)) == (("CCC",), 9, 2)
    assert (record.start_date, record.end_date) == ("2000-06-01", "2001-06-30")
    assert ktrdr.parse_strategy(model.strategy.text).symbols == ("CCC",)


def test_bars_may_come_in_any_shape(strategy: Strategy, bars_of: MakeBars) -> None:
    aaa, bbb = bars_of("AAA"), bars_of("BBB", seed=2)
    shapes: list[Any] = [
        [aaa, bbb],
        {"AAA": aaa, "BBB": bbb},
        {"AAA": {Timeframe.D1: aaa}, "BBB": {Timeframe.D1: bbb}},
    ]
    digests = {ktrdr.train(strategy, shape, epochs=1).digest for shape in shapes}
    assert len(digests) == 1
    model = ktrdr.train(strategy, shapes[0], epochs=1)
    with pytest.raises(InvalidInput, match="symbol='AAA'"):
        ktrdr.backtest(model, shapes[0])
    assert ktrdr.backtest(model, shapes[1], symbol="BBB").symbol == "BBB"
    with pytest.raises(NotFound, match="Given: AAA, BBB"):
        ktrdr.backtest(model, shapes[0], symbol="CCC")
    with pytest.raises(InvalidInput, match="load_bars"):
        ktrdr.train(strategy, [])


def test_two_pieces_of_the_same_bars_are_refused(strategy: Strategy, bars_of: MakeBars) -> None:
    """Only the last piece would have been used, and nobody would have known."""
    bars = bars_of()
    with pytest.raises(InvalidInput, match=r"AAA 1d are given twice.*one piece"):
        ktrdr.train(strategy, [bars[:300], bars[300:]])


def test_a_model_given_as_a_pickle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="ktrdr models train"):
        ktrdr.load_model(tmp_path / "model.pt")


def test_a_folder_that_is_incomplete_or_damaged_is_refused(
    trained: Any, tmp_path: Path, strategy: Strategy
) -> None:
    from ktrdr.jobs.notebook import Model

    with pytest.raises(NotFound, match=r"bundle\.json"):
        ktrdr.load_model(tmp_path)
    folder = Model(trained.bundle).save(tmp_path / "m")
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(InvalidModel, match="damaged"):
        ktrdr.load_model(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(NotFound, match=r"model\.onnx"):
        ktrdr.load_model(folder)


def test_names_and_arguments_in_the_wrong_order_are_told(strategy: Any, trained: Any, bars_of: Any) -> None:
    bars = bars_of()
    for call, words in (
        (
            lambda: ktrdr.train("small", bars),
            "strategy must be what ktrdr.load_strategy(...) returns, got 'small'",
        ),
        (lambda: ktrdr.train(bars, strategy), "strategy must be what"),
        (lambda: ktrdr.backtest("my_model", bars), "model must be what ktrdr.train(...)"),
        (
            lambda: ktrdr.backtest(ktrdr.Model(trained.bundle), bars, strategy="small"),
            "strategy must be what",
        ),
        (
            lambda: ktrdr.backtest(ktrdr.Model(trained.bundle), "AAA"),
            "bars must be what ktrdr.load_bars(...)",
        ),
    ):
        with pytest.raises(InvalidInput) as caught:
            call()
        assert words in caught.value.message
