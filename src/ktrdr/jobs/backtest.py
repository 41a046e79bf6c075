"""The backtest job: bars, a strategy and its trained model in; trades, equity and statistics out. Never loads torch."""

from __future__ import annotations

import io
import json
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ktrdr.backtesting import BacktestingEngine, Result, SimulationConfig, buy_and_hold
from ktrdr.backtesting.engine import SimulationProgress
from ktrdr.backtesting.state import SimulationState
from ktrdr.bars import to_datetime
from ktrdr.errors import InvalidInput, UnusableCheckpoint
from ktrdr.jobs.asking import Answers, answer_bars, plan_for
from ktrdr.jobs.checkpoint import Checkpoint, ResumePoint
from ktrdr.jobs.environment import Job, JobEnvironment, JobResult
from ktrdr.jobs.in_sample import learned_range
from ktrdr.jobs.market_data import Moment, SymbolBars, load_market
from ktrdr.jobs.remarks import remarks_on
from ktrdr.jobs.stretch import Stretch
from ktrdr.models.bundle import Bundle, JsonValue, load_bundle
from ktrdr.models.decision import Decisions
from ktrdr.operations.progress import Metric, Progress, Scalar
from ktrdr.protocol.specs import BacktestSpec
from ktrdr.strategies.document import Strategy
from ktrdr.strategies.parse import parse_strategy, with_overrides
from ktrdr.timeframe import Timeframe

__all__ = ["Backtest", "SimulationOverrides", "backtest_job", "backtest_model"]

_REPORTS = 100
_SHORTEST_CHUNK, _LONGEST_CHUNK = 50, 10_000

_SUMMARY = (
    "total_return",
    "annual_return",
    "sharpe_ratio",
    "sortino_ratio",
    "max_drawdown",
    "calmar_ratio",
    "win_rate",
    "profit_factor",
    "total_trades",
    "final_equity",
)


@dataclass(frozen=True, slots=True)
class SimulationOverrides:
    """What a request may change in the strategy's account; None leaves it. Rates of traded value and of price."""

    initial_capital: float | None = None
    commission: float | None = None
    slippage: float | None = None

    def apply(self, config: SimulationConfig) -> SimulationConfig:
        """The configuration with these values; a slippage given here replaces basis points of the document.

        Raises
        ------
        InvalidInput
            If a value is out of range.
        """
        costs = config.costs
        if self.commission is not None:
            costs = replace(costs, commission=self.commission)
        if self.slippage is not None:
            costs = replace(costs, slippage=self.slippage, slippage_bps=0.0)
        capital = config.initial_capital if self.initial_capital is None else self.initial_capital
        return replace(config, costs=costs, initial_capital=capital)


@dataclass(frozen=True, slots=True, eq=False)
class Backtest:
    """A finished backtest: the simulation, the benchmark over the same bars, and what the warm-up took.

    ``bars_lost`` bars of the requested range have no features yet; ``bars_before`` stored bars before it fed the
    warm-up. ``rows_without_features`` of the simulated bars had none and kept the position; ``in_sample_bars`` of
    them lie in the range that the model was trained on.
    """

    result: Result
    benchmark: Result
    bars_lost: int
    bars_before: int
    rows_without_features: int
    in_sample_bars: int
    needed: dict[Timeframe, int]
    requested: tuple[Moment, Moment]


def backtest_job(spec: BacktestSpec, env: JobEnvironment) -> Job:
    """Run a backtest specification; artifacts ``result`` (JSON), ``trades`` and ``equity`` (Parquet)."""
    strategy = with_overrides(
        parse_strategy(spec.strategy, source=spec.strategy_name), timeframes=spec.timeframe
    )
    resume = env.resume
    yield Progress(*((0, 0) if resume is None else (resume.done, resume.total)), "loading model and bars")
    bundle = load_bundle(env.artifacts, spec.model)
    market = load_market(spec.datasets, env.artifacts)
    if spec.symbol not in market:
        raise InvalidInput(
            f"The specification has no bars of {spec.symbol}; it has {', '.join(market) or 'none'}."
        )
    backtest = yield from backtest_model(
        bundle,
        market[spec.symbol],
        strategy=strategy,
        start=spec.start_date,
        end=spec.end_date,
        overrides=SimulationOverrides(spec.initial_capital, spec.commission, spec.slippage),
        resume=resume,
    )
    result = backtest.result
    document = _document(backtest, spec.strategy_name, bundle)
    content = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    artifacts = {
        "result": env.artifacts.put(content),
        "trades": env.artifacts.put(_parquet(result.trades_frame())),
        "equity": env.artifacts.put(_parquet(result.equity_frame(backtest.benchmark))),
    }
    summary: dict[str, JsonValue] = {name: result.statistics[name] for name in _SUMMARY}
    summary["benchmark_return"] = backtest.benchmark.statistics["total_return"]
    summary["in_sample_bars"] = backtest.in_sample_bars
    return JobResult(summary | {"result_digest": result.digest()}, artifacts)


def backtest_model(
    bundle: Bundle,
    bars: SymbolBars,
    *,
    strategy: Strategy | None = None,
    start: Moment = None,
    end: Moment = None,
    overrides: SimulationOverrides | None = None,
    threads: int = 1,
    resume: Checkpoint | None = None,
) -> Generator[Progress | Metric | ResumePoint, None, Backtest]:
    """Let a model trade.

    Parameters
    ----------
    bundle
        The model; its features must be those of ``strategy``.
    bars
        Bars of one symbol by timeframe, from the dataset's start: what lies before ``start`` feeds the warm-up.
    strategy
        Whose decisions, costs and rules to use; by default the model's own.
    start, end
        Both included; a plain date as ``end`` includes that day. None: as far as the bars go.
    overrides
        Changes to the account.
    threads
        Threads of the inference runtime.
    resume
        Where to go on; the bars before it are not simulated again. The model is asked again: that costs less than to
        store and move its answers.

    Yields
    ------
    Progress
        ``items_done`` bars of ``items_total``; context ``current_bar, total_bars, current_date, current_pnl,
        total_trades, win_rate``.
    Metric
        About a hundred, one per stretch of bars that is simulated: ``bar, time, equity, profit, total_trades,
        win_rate``.
    ResumePoint
        After each stretch.

    Raises
    ------
    UnusableCheckpoint
        If ``resume`` is of another simulation.
    InvalidModel
        If the model was trained on other features, or answers something that is no number.
    TooFewBars
        If fewer than 2 bars of the range lie after the warm-up, or none has features; with the bars there are and the
        warm-up needed.
    """
    strategy = strategy or parse_strategy(bundle.manifest.strategy, source=bundle.manifest.strategy_name)
    plan, config = plan_for(bundle, strategy), _config(strategy, overrides)
    stretch = Stretch.of(plan, bars, start, end)
    answers = yield from _ask(bundle, stretch, strategy, threads, 0 if resume is None else resume.done)
    begin = stretch.begin(answers.features)
    result = yield from _simulate(stretch, answers, config, begin, resume)
    return _judged(bundle, strategy, stretch, answers, result)


def _config(strategy: Strategy, overrides: SimulationOverrides | None) -> SimulationConfig:
    return (overrides or SimulationOverrides()).apply(
        SimulationConfig.from_json(strategy.simulation_settings())
    )


def _judged(
    bundle: Bundle, strategy: Strategy, stretch: Stretch, answers: Answers, result: Result
) -> Backtest:
    """The simulation beside its benchmark, with what is to be remarked on it."""
    base, begin = stretch.base, len(stretch.base) - len(result.time_T)
    learned, year = learned_range(bundle.manifest.training, base.symbol), stretch.year(begin)
    without = int(np.count_nonzero(~answers.features.valid_T[begin:]))
    said = Decisions(answers.decisions.signal_T[begin:], answers.decisions.confidence_T[begin:])
    remarks = remarks_on(
        result,
        base[begin:],
        learned,
        said,
        threshold=strategy.decisions.confidence_threshold,
        rows_without_features=without,
        bars_per_year=year,
    )
    return Backtest(
        result=replace(result, notes=tuple(remarks)),
        benchmark=buy_and_hold(base, result.config, bars_per_year=year, first=begin),
        bars_lost=begin - stretch.first,
        bars_before=stretch.first,
        rows_without_features=without,
        in_sample_bars=learned.count(result.time_T) if learned else 0,
        needed={timeframe: stretch.plan.warmup(timeframe) for timeframe in stretch.plan.timeframes},
        requested=stretch.requested,
    )


def _ask(
    bundle: Bundle, stretch: Stretch, strategy: Strategy, threads: int, done: int
) -> Generator[Progress, None, Answers]:
    total, threshold = len(stretch.base) - stretch.first, strategy.decisions.confidence_threshold
    steps = answer_bars(
        bundle, stretch.plan, stretch.seen, threshold=threshold, first=stretch.first, threads=threads
    )
    while True:
        try:
            yield Progress(done, total, next(steps))
        except StopIteration as stop:
            answers: Answers = stop.value
            return answers


def _simulate(
    stretch: Stretch, answers: Answers, config: SimulationConfig, first: int, resume: Checkpoint | None
) -> Generator[Progress | Metric | ResumePoint, None, Result]:
    total = len(stretch.base) - first
    state = SimulationState(config.initial_capital, total)
    if resume is not None:
        try:
            state.restore(resume.snapshot)
        except InvalidInput as error:
            raise UnusableCheckpoint(error.message) from None
    chunk = min(max(-(-total // _REPORTS), _SHORTEST_CHUNK), _LONGEST_CHUNK)
    run = BacktestingEngine(config, chunk_bars=chunk).run(
        stretch.base,
        answers.decisions.signal_T,
        confidence=answers.decisions.confidence_T,
        bars_per_year=stretch.year(first),
        first=first,
        state=state,
    )
    while True:
        try:
            reached = next(run)
        except StopIteration as stop:
            result: Result = stop.value
            yield Progress(total, total, "benchmark: buy and hold", _last_context(result))
            return result
        yield Metric(_record(reached))
        yield ResumePoint(reached.bars_done, total, "bars", state.snapshot)
        line = (
            f"{to_datetime(reached.time):%Y-%m-%d}: {reached.profit:+,.0f}, {reached.total_trades:,} trades"
        )
        yield Progress(reached.bars_done, reached.bars_total, line, _context(reached))


def _record(state: SimulationProgress) -> dict[str, Scalar]:
    return {
        "bar": state.bars_done,
        "time": to_datetime(state.time).isoformat(),
        "equity": state.equity,
        "profit": state.profit,
        "total_trades": state.total_trades,
        "win_rate": state.win_rate,
    }


def _context(state: SimulationProgress) -> dict[str, Scalar]:
    return {
        "current_bar": state.bars_done,
        "total_bars": state.bars_total,
        "current_date": to_datetime(state.time).isoformat(),
        "current_pnl": state.profit,
        "total_trades": state.total_trades,
        "win_rate": state.win_rate,
    }


def _last_context(result: Result) -> dict[str, Scalar]:
    """The context of the finished simulation, its closing trade included."""
    bars, initial = len(result.time_T), result.config.initial_capital
    return {
        "current_bar": bars,
        "total_bars": bars,
        "current_date": to_datetime(int(result.time_T[-1])).isoformat(),
        "current_pnl": float(result.equity_T[-1]) - initial,
        "total_trades": len(result.trades),
        "win_rate": result.statistics["win_rate"],
    }


def _document(backtest: Backtest, strategy_name: str, bundle: Bundle) -> dict[str, JsonValue]:
    result = backtest.result
    start, end = backtest.requested
    return {
        "kind": "backtesting",
        "strategy_name": strategy_name,
        "symbol": result.symbol,
        "timeframe": result.timeframe.value,
        "start": to_datetime(int(result.time_T[0])).isoformat(),
        "end": to_datetime(int(result.time_T[-1])).isoformat(),
        "requested_start": None if start is None else str(start),
        "requested_end": None if end is None else str(end),
        "initial_capital": result.config.initial_capital,
        "statistics": dict(result.statistics),
        "benchmark": dict(backtest.benchmark.statistics),
        "warmup": {
            "bars_lost": backtest.bars_lost,
            "bars_before_start": backtest.bars_before,
            "needed": {timeframe.value: rows for timeframe, rows in backtest.needed.items()},
            "rows_without_features": backtest.rows_without_features,
        },
        "in_sample_bars": backtest.in_sample_bars,
        "warnings": list(result.warnings()),
        "counts": dict(result.counts),
        "config": result.config.to_json(),
        "digest": result.digest(),
        "model": bundle.digest,
    }


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()
