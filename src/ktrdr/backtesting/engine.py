"""The simulator's loop: bars and signals in, a :class:`Result` out, progress on the way.

The loop is a generator that stops after each chunk of bars; whoever iterates it reports, cancels or simply
goes on. The arithmetic is in :mod:`ktrdr.backtesting.kernel`.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ktrdr.backtesting import kernel
from ktrdr.backtesting.config import PositionRules, SimulationConfig, Stops
from ktrdr.backtesting.performance import Account, statistics_of
from ktrdr.backtesting.result import Fills, OpenPosition, Result, Trades
from ktrdr.backtesting.state import SimulationState
from ktrdr.bars import Bars, FloatArray
from ktrdr.errors import FieldError, InvalidInput, TooFewBars

__all__ = ["BacktestingEngine", "SimulationProgress", "buy_and_hold", "simulate"]

CHUNK_BARS = 20_000
_EMPTY = np.empty(0)
_EMPTY.flags.writeable = False
_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class SimulationProgress:
    """Where the loop stands after a chunk; ``time`` is the open time of the last bar done, in microseconds."""

    bars_done: int
    bars_total: int
    time: int
    equity: float
    profit: float
    total_trades: int
    win_rate: float | None


class BacktestingEngine:
    """Simulates one instrument under one configuration; holds no state between runs."""

    def __init__(self, config: SimulationConfig, *, chunk_bars: int = CHUNK_BARS) -> None:
        if chunk_bars < 1:
            raise InvalidInput(f"chunk_bars must be at least 1, got {chunk_bars}.")
        self.config = config
        self.chunk_bars = chunk_bars

    def run(
        self,
        bars: Bars,
        signals: npt.ArrayLike,
        *,
        confidence: npt.ArrayLike | None = None,
        bars_per_year: float | None = None,
        first: int = 0,
        state: SimulationState | None = None,
    ) -> Generator[SimulationProgress, None, Result]:
        """The simulation as a generator: yields after each chunk, returns the result. See :func:`simulate`.

        ``state`` is where to go on, of the bars from ``first`` on; None begins. At every yield it is whole:
        ``state.snapshot()`` there, restored, leads to the same result, bit for bit.
        """
        market = _market(bars, signals, confidence, self.config, first)
        if bars_per_year is None:
            bars_per_year = _bars_per_year(bars)
        rules, total = _rules(self.config), len(market.close)
        state = state or SimulationState(self.config.initial_capital, total)
        account, equity_T, time_T = state.account, state.equity_T, bars.time[first:]
        while state.done < total:
            end = min(state.done + self.chunk_bars, total)
            while (
                done := kernel.advance(
                    market, rules, account, equity_T, state.fills, state.trades, state.done, end
                )
            ) < end:
                state.done = done
                state.make_room()
            state.done = end
            yield _progress(self.config, account[0], end, total, time_T, equity_T)
        if self.config.at_end == "close":
            state.make_room()
            kernel.finish(market, rules, account, equity_T, state.fills, state.trades)
        return self._result(bars, market, state, first, bars_per_year)

    def _result(
        self,
        bars: Bars,
        market: kernel.Market,
        state: SimulationState,
        first: int,
        bars_per_year: float,
    ) -> Result:
        time_T, equity_T, end = bars.time[first:], state.equity_T, state.account[0]
        trades = _trades(state.trades[: end.trades], time_T)
        fills = _fills(state.fills[: end.fills])
        position = _open_position(end, float(market.close[-1]))
        still_held = len(time_T) - int(end.entry_row) if position else 0
        account = Account(
            net=trades.net,
            bars_held=trades.bars_held,
            bars_in_market=int(end.bars_held) + still_held,
            traded_value=float(end.traded),
            commission=float(end.commissions),
            slippage=float(end.slippage),
        )
        statistics = statistics_of(
            equity_T,
            market.close,
            account,
            bars_per_year=bars_per_year,
            days=float(time_T[-1] - time_T[0]) / _DAY,
            risk_free_rate=self.config.risk_free_rate,
            minimum_return=self.config.minimum_return,
        )
        return Result(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            config=self.config,
            time_T=time_T,
            equity_T=equity_T,
            trades=trades,
            fills=fills,
            open_position=position,
            counts={name: int(end[name]) for name in kernel.COUNTERS},
            statistics=statistics,
        )


def simulate(
    bars: Bars,
    signals: npt.ArrayLike,
    config: SimulationConfig | None = None,
    *,
    confidence: npt.ArrayLike | None = None,
    bars_per_year: float | None = None,
    first: int = 0,
) -> Result:
    """Trade a signal array on bars and account for every cent.

    Parameters
    ----------
    bars
        T bars.
    signals
        (T,) integers +1 (BUY), -1 (SELL), 0 (keep), each known at the close of its bar; an order fills at the
        next open.
    config
        Capital, sizing, costs, stops, rules; the defaults if omitted.
    confidence
        (T,) floats kept with the trades that the signals open.
    bars_per_year
        A of the annualised statistics; by default from the bars' calendar.
    first
        Index of the first bar after warm-up. Bars before it only feed the ATR; equity starts at its close
        with the initial capital, and the first fill can be at the open of the bar after it.

    Returns
    -------
    Result
        Equal, bit for bit, whatever the chunking.

    Raises
    ------
    InvalidInput
        If signals or confidence do not fit the bars, or quotes are asked for and absent.
    TooFewBars
        If fewer than 2 bars remain from ``first`` on.
    """
    run = BacktestingEngine(config or SimulationConfig()).run(
        bars, signals, confidence=confidence, bars_per_year=bars_per_year, first=first
    )
    while True:
        try:
            next(run)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def buy_and_hold(
    bars: Bars, config: SimulationConfig | None = None, *, bars_per_year: float | None = None, first: int = 0
) -> Result:
    """The benchmark: buy at the first possible open and keep, with the same capital, sizing and costs.

    No stops and no position rules apply; a ``risk`` sizing becomes the whole equity.
    """
    config = config or SimulationConfig()
    sizing = (
        replace(config.sizing, type="fraction", fraction=1.0)
        if config.sizing.type == "risk"
        else config.sizing
    )
    plain = replace(config, sizing=sizing, stops=Stops(), positions=PositionRules())
    signals = np.zeros(len(bars), dtype=np.int8)
    signals[first : first + 1] = 1
    return simulate(bars, signals, plain, bars_per_year=bars_per_year, first=first)


def _market(
    bars: Bars, signals: npt.ArrayLike, confidence: npt.ArrayLike | None, config: SimulationConfig, first: int
) -> kernel.Market:
    if not 0 <= first <= len(bars):
        raise InvalidInput(f"first must lie in 0..{len(bars)} (the number of bars), got {first}.")
    if len(bars) - first < 2:
        raise TooFewBars(
            f"A simulation needs at least 2 bars; {len(bars) - first} of {len(bars)} are left after a warm-up of {first}."
        )
    half_open, half_close = _half_spreads(bars, config)
    rows = slice(first, None)
    return kernel.Market(
        open=bars.open[rows],
        high=bars.high[rows],
        low=bars.low[rows],
        close=bars.close[rows],
        signal=_signals(signals, len(bars))[rows],
        confidence=_EMPTY if confidence is None else _confidence(confidence, len(bars))[rows],
        atr=_atr(bars, config)[rows],
        half_open=half_open[rows],
        half_close=half_close[rows],
    )


def _signals(signals: npt.ArrayLike, count: int) -> npt.NDArray[np.int8]:
    given = np.asarray(signals)
    if given.shape != (count,) or given.dtype.kind not in "iu":
        raise InvalidInput(
            f"signals must be {count} integers, one per bar; got shape {given.shape} of {given.dtype}."
        )
    if count and (int(given.min()) < -1 or int(given.max()) > 1):
        row = int(np.flatnonzero((given < -1) | (given > 1))[0])
        error = FieldError(f"row {row}", f"must be +1, 0 or -1, got {given[row]}")
        raise InvalidInput("signals hold values that mean nothing.", [error])
    signal_T: npt.NDArray[np.int8] = _read_only(given.astype(np.int8, copy=False))
    return signal_T


def _confidence(confidence: npt.ArrayLike, count: int) -> FloatArray:
    given = np.asarray(confidence, dtype=np.float64)
    if given.shape != (count,):
        raise InvalidInput(f"confidence must be {count} numbers, one per bar; got shape {given.shape}.")
    confidence_T: FloatArray = _read_only(given)
    return confidence_T


def _read_only(array: np.ndarray) -> Any:
    """A contiguous view the kernel cannot write to; the caller's own array keeps its flags."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _half_spreads(bars: Bars, config: SimulationConfig) -> tuple[FloatArray, FloatArray]:
    if config.costs.spread == "none":
        return _EMPTY, _EMPTY
    if bars.quotes is None:
        raise InvalidInput(
            f"costs.spread is 'quotes', but the bars of {bars.symbol} have no bid and ask. "
            "Import a file with bid and ask columns, or set costs.spread to 'none'."
        )
    quotes = bars.quotes
    half_open = np.maximum(quotes.ask_open - quotes.bid_open, 0.0) / 2.0
    half_close = np.maximum(quotes.ask_close - quotes.bid_close, 0.0) / 2.0
    return _read_only(half_open), _read_only(half_close)


def _atr(bars: Bars, config: SimulationConfig) -> FloatArray:
    if not config.stops.uses_atr:
        return _EMPTY
    from ktrdr.indicators import compute  # lazy: TA-Lib is needed only for stops in ATRs

    atr: FloatArray = _read_only(compute("atr", bars, period=config.stops.atr_period)["atr"])
    return atr


def _bars_per_year(bars: Bars) -> float:
    from ktrdr.market.calendars import bars_per_year  # lazy: exchange calendars bring pandas

    return bars_per_year(bars.calendar, bars.timeframe, bars.start, bars.end)


def _rules(config: SimulationConfig) -> kernel.Rules:
    sizing, costs, stops, positions = config.sizing, config.costs, config.stops, config.positions
    kinds = {"fraction": kernel.FRACTION, "units": kernel.UNITS, "cash": kernel.CASH, "risk": kernel.RISK}

    def or_infinite(value: float | None) -> float:
        return math.inf if value is None else float(value)

    resting = stops.has_stop_loss or stops.take_profit is not None or stops.take_profit_atr is not None
    return kernel.Rules(
        sizing=kinds[sizing.type],
        amount=float(getattr(sizing, sizing.type)),
        lot_step=float(sizing.lot_step),
        rate=float(costs.commission),
        per_unit=float(costs.commission_per_unit),
        fixed=float(costs.commission_fixed),
        minimum=float(costs.commission_minimum),
        slippage=float(costs.slippage_rate),
        quoted=costs.spread == "quotes",
        stop=or_infinite(stops.stop_loss),
        target=or_infinite(stops.take_profit),
        trail=or_infinite(stops.trailing_stop),
        stop_atr=or_infinite(stops.stop_loss_atr),
        target_atr=or_infinite(stops.take_profit_atr),
        trail_atr=or_infinite(stops.trailing_stop_atr),
        uses_atr=stops.uses_atr,
        resting=resting,
        max_holding=-kernel.NEVER if stops.max_holding_bars is None else stops.max_holding_bars,
        aware=positions.position_awareness,
        shorts=positions.allow_short_from_flat,
        separation=positions.min_signal_separation_bars,
        flip=positions.reversal == "flip",
    )


def _progress(
    config: SimulationConfig, state: Any, done: int, total: int, time_T: Any, equity_T: FloatArray
) -> SimulationProgress:
    equity, closed = float(equity_T[done - 1]), int(state.trades)
    return SimulationProgress(
        bars_done=done,
        bars_total=total,
        time=int(time_T[done - 1]),
        equity=equity,
        profit=equity - config.initial_capital,
        total_trades=closed,
        win_rate=int(state.wins) / closed if closed else None,
    )


def _trades(records: Any, time_T: Any) -> Trades:
    entry_row, exit_row = _column(records, "entry_row"), _column(records, "exit_row")
    units = records["units"]
    same = (
        "entry_price",
        "exit_price",
        "gross",
        "costs",
        "net",
        "slippage",
        "mae",
        "mfe",
        "bars_held",
        "confidence",
    )
    return Trades(
        entry_row=entry_row,
        exit_row=exit_row,
        entry_time=time_T[entry_row],
        exit_time=time_T[exit_row],
        side=np.sign(units).astype(np.int8),
        size=np.abs(units),
        reason=records["reason"].astype(np.int8),
        **{name: _column(records, name) for name in same},
    )


def _fills(records: Any) -> Fills:
    same = ("row", "units", "price", "commission", "slippage", "position")
    return Fills(reason=records["reason"].astype(np.int8), **{name: _column(records, name) for name in same})


def _column(records: Any, name: str) -> Any:
    return np.ascontiguousarray(records[name])


def _open_position(state: Any, close: float) -> OpenPosition | None:
    if state.units == 0.0:
        return None
    return OpenPosition(
        units=float(state.units),
        entry_price=float(state.entry_price),
        entry_row=int(state.entry_row),
        unrealised=float(state.units * (close - state.entry_price) - state.entry_costs),
    )
