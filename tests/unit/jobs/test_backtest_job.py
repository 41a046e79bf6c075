"""The backtest job: dates, warm-up, overrides, benchmark, results, errors with both numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backtesting import SimulationConfig, simulate
from ktrdr.bars import Bars
from ktrdr.errors import InvalidInput, InvalidModel, TooFewBars, UnusableCheckpoint
from ktrdr.jobs.backtest import Backtest, SimulationOverrides, backtest_model
from ktrdr.jobs.checkpoint import Checkpoint, ResumePoint
from ktrdr.jobs.environment import JobEnvironment
from ktrdr.jobs.run import run_job
from ktrdr.market.manifest import write_dataset
from ktrdr.models.bundle import Bundle, load_bundle, save_bundle
from ktrdr.operations.progress import Metric, Progress
from ktrdr.protocol.specs import BacktestSpec, DatasetRef
from ktrdr.snapshot import Snapshot, pack, unpack
from ktrdr.strategies import Strategy, parse_strategy, with_overrides
from ktrdr.timeframe import Timeframe

Drained = Callable[[Any], tuple[list[Any], Any]]
MakeBars = Callable[..., Bars]
D1, H1 = Timeframe.D1, Timeframe.H1
HOUR = H1.microseconds


@pytest.fixture
def run(trained: Any, bars_of: MakeBars, drained: Drained) -> Callable[..., Backtest]:
    def run(bars: Bars | None = None, **kwargs: Any) -> Backtest:
        market = {D1: bars_of() if bars is None else bars}
        return drained(backtest_model(trained.bundle, market, **kwargs))[1]

    return run


def test_the_whole_range_begins_after_the_warm_up(run: Callable[..., Backtest], bars_of: MakeBars) -> None:
    backtest = run()
    warmup = backtest.needed[D1]
    assert warmup > 0
    assert (backtest.bars_lost, backtest.bars_before) == (warmup, 0)
    assert backtest.result.time_T[0] == bars_of().time[warmup]
    assert len(backtest.result.time_T) == 600 - warmup


def test_bars_before_the_start_feed_the_warm_up(run: Callable[..., Backtest], bars_of: MakeBars) -> None:
    bars = bars_of()
    backtest = run(start=bars[400:].start, end=bars[:420].end)
    assert len(backtest.result.time_T) == 20
    assert (backtest.bars_lost, backtest.bars_before) == (0, 400)
    assert backtest.result.time_T[0] == bars.time[400]
    assert backtest.result.time_T[-1] == bars.time[419]


def test_a_start_inside_the_warm_up_loses_the_rest_of_it(
    run: Callable[..., Backtest], bars_of: MakeBars
) -> None:
    backtest = run(start=bars_of()[5:].start)
    assert backtest.bars_before == 5
    assert backtest.bars_lost == backtest.needed[D1] - 5
    assert backtest.result.time_T[0] == bars_of().time[backtest.needed[D1]]


def test_a_plain_end_date_includes_that_day(run: Callable[..., Backtest], bars_of: MakeBars) -> None:
    bars = bars_of()
    assert run(end=f"{bars[:300].end:%Y-%m-%d}").result.time_T[-1] == bars.time[299]


def test_later_bars_change_nothing_before_them(
    trained: Any, bars_of: MakeBars, drained: Drained, run: Callable[..., Backtest]
) -> None:
    """The prefix law: the same start, an earlier end."""
    bars = bars_of()
    whole, part = run(bars), run(bars[:450])
    rows = len(part.result.time_T)
    same = slice(0, rows - 1)  # on its last bar the shorter run closes its position
    assert np.array_equal(whole.result.equity_T[same], part.result.equity_T[same])
    assert np.array_equal(whole.result.position_T[same], part.result.position_T[same])


def test_the_benchmark_is_buy_and_hold_over_the_same_bars_with_the_same_costs(
    run: Callable[..., Backtest], bars_of: MakeBars
) -> None:
    bars = bars_of()
    backtest = run(start=bars[300:].start)
    signals = np.zeros(600, np.int8)
    signals[300] = 1
    config = replace(backtest.result.config, positions=backtest.benchmark.config.positions)
    expected = simulate(bars, signals, config, first=300)
    assert np.array_equal(backtest.benchmark.equity_T, expected.equity_T)
    assert np.array_equal(backtest.benchmark.time_T, backtest.result.time_T)
    assert backtest.benchmark.statistics["total_commission"] > 0


def test_overrides_reach_the_account(run: Callable[..., Backtest]) -> None:
    plain = run().result
    rich = run(overrides=SimulationOverrides(initial_capital=50_000)).result
    dear = run(overrides=SimulationOverrides(commission=0.01)).result
    slipping = run(overrides=SimulationOverrides(slippage=0.01)).result
    assert plain.config.initial_capital == 10_000
    assert rich.equity_T[0] == 50_000
    assert dear.config.costs.commission == 0.01
    assert dear.statistics["total_commission"] > 10 * plain.statistics["total_commission"]
    assert (slipping.config.costs.slippage, slipping.config.costs.slippage_bps) == (0.01, 0.0)
    assert slipping.statistics["total_slippage"] > 10 * plain.statistics["total_slippage"]
    assert SimulationOverrides().apply(plain.config) == plain.config


def test_an_override_out_of_range_is_refused(run: Callable[..., Backtest]) -> None:
    with pytest.raises(InvalidInput, match="initial_capital"):
        run(overrides=SimulationOverrides(initial_capital=-1))


def test_the_threshold_of_the_strategy_is_honoured(run: Callable[..., Backtest], strategy: Strategy) -> None:
    sure = parse_strategy(strategy.text.replace("confidence_threshold: 0.0", "confidence_threshold: 0.99"))
    assert len(run().result.trades) > 0
    assert len(run(strategy=sure).result.trades) == 0


def test_progress_and_metrics_follow_the_bars(trained: Any, bars_of: MakeBars, drained: Drained) -> None:
    events, backtest = drained(backtest_model(trained.bundle, {D1: bars_of()}))
    metrics = [event.values for event in events if isinstance(event, Metric)]
    total = len(backtest.result.time_T)
    bars = [m["bar"] for m in metrics]
    assert bars[-1] == total
    assert max(np.diff([0, *bars])) <= 50
    assert set(metrics[0]) == {"bar", "time", "equity", "profit", "total_trades", "win_rate"}
    done = [event.items_done for event in events if isinstance(event, Progress)]
    assert done == sorted(done)
    last = events[-1]
    assert set(last.context) == {
        *("current_bar", "total_bars", "current_date", "current_pnl", "total_trades", "win_rate")
    }
    assert last.context["total_trades"] == len(backtest.result.trades)
    assert last.context["current_pnl"] == pytest.approx(backtest.result.equity_T[-1] - 10_000)


def test_an_empty_range_says_what_there_is(run: Callable[..., Backtest]) -> None:
    with pytest.raises(TooFewBars, match=r"there are 0 of AAA 1d from 2030-01-01 .*2000-02-13 to .*600 bars"):
        run(start="2030-01-01")
    with pytest.raises(TooFewBars, match="there are 0"):
        run(end="1999-01-01")


def test_too_few_bars_for_the_warm_up_give_both_numbers(
    run: Callable[..., Backtest], bars_of: MakeBars
) -> None:
    warmup = run().needed[D1]
    with pytest.raises(TooFewBars, match=rf"need {warmup} of 1d bars of warm-up.* has {warmup + 1} of 1d"):
        run(bars_of()[: warmup + 1])


def test_a_model_of_other_inputs_is_refused(run: Callable[..., Backtest], strategy: Strategy) -> None:
    renamed = parse_strategy(strategy.text.replace("low:", "deep:"))
    with pytest.raises(InvalidModel, match=r"the strategy has 1d_momentum_deep, the model 1d_momentum_low"):
        run(strategy=renamed)
    moved = parse_strategy(strategy.text.replace("period: 3", "period: 4"))
    with pytest.raises(InvalidModel, match="same names, but"):
        run(strategy=moved)
    shorter = parse_strategy(
        strategy.text.replace(
            "  - {raw_indicator: roc_5, timeframes: all, normalization: zscore}\n", ""
        ).replace("  roc_5: {type: roc, period: 5}\n", "")
    )
    with pytest.raises(InvalidModel, match="/nn_inputs/2: the strategy has None, the model 1d_roc_5"):
        run(strategy=shorter)


def test_missing_bars_of_a_timeframe_are_named(trained: Any, bars_of: MakeBars, drained: Drained) -> None:
    with pytest.raises(InvalidInput, match="AAA 1d; given: AAA 1w"):
        drained(backtest_model(trained.bundle, {Timeframe.W1: bars_of()}))


def test_bars_of_the_training_range_are_counted_and_told(
    trained: Any, run: Callable[..., Backtest], bars_of: MakeBars
) -> None:
    """The model was trained on all 600 bars of AAA, 2000-02-13 to 2001-10-04."""
    whole = run()
    assert whole.in_sample_bars == len(whole.result.time_T)
    (told,) = (line for line in whole.result.warnings() if "trained on" in line)
    assert f"All {whole.in_sample_bars:,} bars" in told
    assert "2000-02-13 to 2001-10-04" in told
    longer = bars_of(rows=650)
    part = run(longer, start=longer[590:].start)
    assert part.in_sample_bars == 10
    assert "10 of 60 bars" in part.result.warnings()[0]
    unseen = run(longer, start=longer[600:].start)
    assert unseen.in_sample_bars == 0
    assert not any("trained on" in line for line in unseen.result.warnings())


def test_bars_of_another_symbol_were_never_seen(run: Callable[..., Backtest], bars_of: MakeBars) -> None:
    assert run(bars_of("BBB")).in_sample_bars == 0


def test_bars_before_the_training_start_were_not_learned_from(
    bars_of: MakeBars, strategy: Strategy, store: FileArtifactStore, drained: Drained
) -> None:
    from ktrdr.jobs.train import train_model

    bars = bars_of()
    late = with_overrides(strategy, start_date=bars[200:].start, end_date=bars[:500].end)
    model = drained(train_model(late, {"AAA": {D1: bars}}, store, device="cpu"))[1]
    backtest = drained(backtest_model(model.bundle, {D1: bars}))[1]
    lost = backtest.bars_lost
    assert 0 < lost < 200
    assert backtest.in_sample_bars == 300
    assert len(backtest.result.time_T) == 600 - lost
    assert drained(backtest_model(model.bundle, {D1: bars}, end=bars[:200].end))[1].in_sample_bars == 0


def test_bars_that_do_not_follow_their_calendar_are_told(
    run: Callable[..., Backtest], bars_of: MakeBars
) -> None:
    """Seven bars a week under a calendar of five: what is annualised would be off by a fifth, silently."""
    fitting, wrong = run(), run(replace(bars_of(), calendar="24/5"))
    assert not any("a year" in line for line in fitting.result.warnings())
    (told,) = (line for line in wrong.result.warnings() if "a year" in line)
    assert "come at a rate of 365 a year" in told
    assert "24/5 schedules 261" in told
    short = run(replace(bars_of(), calendar="24/5"), start=bars_of()[560:].start)
    assert not any("a year" in line for line in short.result.warnings())


def broken(trained: Any, store: FileArtifactStore, **changes: Any) -> Bundle:
    manifest = trained.bundle.manifest.model_copy(update=changes)
    return save_bundle(store, manifest, model=trained.bundle.model_path().read_bytes(), weights={})


def test_a_scaler_that_is_none_is_an_invalid_model(
    trained: Any, store: FileArtifactStore, bars_of: MakeBars, drained: Drained
) -> None:
    with pytest.raises(InvalidModel, match="no mapping"):
        drained(backtest_model(broken(trained, store, scaler=[1]), {D1: bars_of()}))


def test_a_network_that_answers_nan_stops_the_run(
    trained: Any, store: FileArtifactStore, bars_of: MakeBars, drained: Drained
) -> None:
    from ktrdr.models.onnx_graph import build_onnx

    weights = {name: value * np.nan for name, value in trained.bundle.weights().items()}
    manifest = trained.bundle.manifest
    bundle = save_bundle(store, manifest, model=build_onnx(manifest.architecture, weights), weights=weights)
    with pytest.raises(InvalidModel, match="not numbers"):
        drained(backtest_model(bundle, {D1: bars_of()}))


@pytest.fixture
def spec(trained: Any, strategy: Strategy, bars_of: MakeBars, store: FileArtifactStore) -> BacktestSpec:
    """A specification whose artifacts all lie in ``store``."""
    manifest = write_dataset(store, bars_of(), source="made up", licence="none")
    bundle = save_bundle(
        store,
        trained.bundle.manifest,
        model=trained.bundle.model_path().read_bytes(),
        weights=trained.bundle.weights(),
    )
    return BacktestSpec(
        strategy_name="small",
        strategy=strategy.text,
        symbol="AAA",
        timeframe="1d",
        datasets=[DatasetRef(symbol="AAA", timeframe="1d", manifest=manifest.artifact)],
        model=bundle.digest,
        start_date="2001-01-01",
        end_date="2001-06-30",
        initial_capital=20_000,
    )


def test_the_job_stores_result_trades_and_equity(
    spec: BacktestSpec, store: FileArtifactStore, tmp_path: Path, drained: Drained
) -> None:
    _, result = drained(run_job(spec, JobEnvironment(store, tmp_path)))
    assert set(result.artifacts) == {"result", "trades", "equity"}
    document = json.loads(store.read(result.artifacts["result"]))
    assert document["kind"] == "backtesting"
    assert (document["symbol"], document["timeframe"], document["model"]) == ("AAA", "1d", spec.model)
    assert document["start"] == "2001-01-01T00:00:00+00:00"
    assert document["end"] == "2001-06-30T00:00:00+00:00"
    assert document["initial_capital"] == 20_000
    assert document["warmup"]["bars_lost"] == 0
    assert document["warmup"]["needed"]["1d"] > 0
    assert set(document["benchmark"]) == set(document["statistics"])
    assert document["in_sample_bars"] == result.summary["in_sample_bars"] == 181
    assert any("All 181 bars" in line for line in document["warnings"])
    assert SimulationConfig.from_json(document["config"]).initial_capital == 20_000
    trades = pl.read_parquet(io.BytesIO(store.read(result.artifacts["trades"])))
    equity = pl.read_parquet(io.BytesIO(store.read(result.artifacts["equity"])))
    assert len(trades) == document["statistics"]["total_trades"] == result.summary["total_trades"]
    assert equity.columns == ["time", "equity", "benchmark", "drawdown", "position"]
    assert len(equity) == 181
    assert trades["net"].sum() == pytest.approx(equity["equity"][-1] - 20_000)
    assert result.summary["result_digest"] == document["digest"]


def test_the_digest_is_the_same_in_two_runs(
    spec: BacktestSpec, store: FileArtifactStore, tmp_path: Path, drained: Drained
) -> None:
    one, two = (drained(run_job(spec, JobEnvironment(store, tmp_path)))[1] for _ in range(2))
    assert one == two


def test_a_symbol_without_bars_is_refused(
    spec: BacktestSpec, store: FileArtifactStore, tmp_path: Path, drained: Drained
) -> None:
    with pytest.raises(InvalidInput, match="no bars of ZZZ; it has AAA"):
        drained(run_job(spec.model_copy(update={"symbol": "ZZZ"}), JobEnvironment(store, tmp_path)))


def test_closing_the_job_stores_nothing(spec: BacktestSpec, store: FileArtifactStore, tmp_path: Path) -> None:
    before = set(store.digests())
    running = run_job(spec, JobEnvironment(store, tmp_path))
    for event in running:
        if isinstance(event, Metric):
            break
    running.close()
    assert set(store.digests()) == before


def test_the_stored_bundle_is_the_trained_one(
    trained: Any, spec: BacktestSpec, store: FileArtifactStore
) -> None:
    assert spec.model == trained.bundle.digest
    assert load_bundle(store, spec.model).manifest == trained.bundle.manifest


def two_timeframes(text: str) -> Strategy:
    """The small strategy, reading its momentum on hours and on days."""
    return parse_strategy(text.replace("timeframes: [1d]", "timeframes: [1h, 1d]"))


def test_a_range_whose_days_are_weeks_old_has_nothing_to_trade_on(
    strategy: Strategy, bars_of: MakeBars, store: FileArtifactStore, drained: Drained
) -> None:
    """Hours of 100 days, days of the first 60: up to a fortnight later the model is asked, after that never."""
    from ktrdr.jobs.train import train_model

    both, rows = two_timeframes(strategy.text), 24 * 100
    hours = replace(bars_of(rows=rows), timeframe=H1, time=(11_000 * 24 + np.arange(rows)) * HOUR)
    days = bars_of(rows=60, seed=2)
    market = {H1: hours, D1: days}
    model = drained(train_model(both, {"AAA": {H1: hours, D1: bars_of(rows=100)}}, store, device="cpu"))[1]
    backtest = drained(backtest_model(model.bundle, market, start=hours[24 * 50 :].start))[1]
    assert backtest.rows_without_features == 24 * (100 - 60 - 15)
    assert any("had no complete features" in line for line in backtest.result.warnings())
    with pytest.raises(
        TooFewBars, match=r"none of the 240 bars .* complete features.* 1d bars to 2000-04-12"
    ):
        drained(backtest_model(model.bundle, market, start=hours[24 * 90 :].start))


def test_from_a_checkpoint_only_the_remaining_bars_are_simulated(
    trained: Any, bars_of: MakeBars, store: FileArtifactStore, tmp_path: Path, drained: Drained
) -> None:
    manifest = write_dataset(store, bars_of(), source="", licence="").artifact
    for digest in [trained.bundle.digest, *trained.bundle.manifest.files.values()]:
        store.put(trained.bundle.artifacts.read(digest))
    spec = BacktestSpec(
        strategy_name="s",
        strategy=trained.bundle.manifest.strategy,
        symbol="AAA",
        timeframe="1d",
        datasets=[DatasetRef(symbol="AAA", timeframe="1d", manifest=manifest)],
        model=trained.bundle.digest,
    )
    whole, metrics, stops = run_job(spec, JobEnvironment(store, tmp_path)), [], []
    while True:
        try:
            event = next(whole)
        except StopIteration as end:
            result = end.value
            break
        if isinstance(event, Metric):
            metrics.append(event.values)
        elif isinstance(event, ResumePoint):
            stops.append(
                Checkpoint(
                    format="backtesting/1",
                    spec_digest="",
                    operation_id="op",
                    attempt=1,
                    done=event.done,
                    total=event.total,
                    unit=event.unit,
                    metrics=tuple(metrics),
                    snapshot=unpack(pack(event.capture())),
                )
            )
    assert len(stops) == len(metrics) == 12
    for place, stop in enumerate(stops, start=1):
        events, again = drained(run_job(spec, JobEnvironment(store, tmp_path, stop)))
        assert again == result
        assert [e.values for e in events if isinstance(e, Metric)] == metrics[place:]
        shown = [e.items_done for e in events if isinstance(e, Progress)]
        assert shown[0] == stop.done
        assert shown == sorted(shown)
    foreign = replace(stops[0], snapshot=Snapshot({}))
    with pytest.raises(UnusableCheckpoint, match="does not fit"):
        drained(run_job(spec, JobEnvironment(store, tmp_path, foreign)))
