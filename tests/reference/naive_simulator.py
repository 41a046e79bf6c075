"""A simulator written from the rules, one bar and one object at a time, to hold the kernel against.

It shares no code with ktrdr.backtesting.kernel: levels are plain prices (not signed ones), every bar is
visited, and money is kept per position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ktrdr.backtesting import SimulationConfig
from ktrdr.bars import Bars


@dataclass
class Position:
    side: int
    units: float
    price: float
    row: int
    commission: float
    lost: float
    confidence: float
    atr: float | None
    best: float
    trail_atr: float | None = None  # the trailing distance is fixed by the first entry
    low: float = math.inf  # extremes of the bars seen whole
    high: float = -math.inf


@dataclass
class Order:
    close: str | None = None
    open_side: int = 0
    confidence: float = math.nan
    atr: float | None = None


@dataclass
class NaiveTrade:
    entry_row: int
    exit_row: int
    side: int
    size: float
    entry_price: float
    exit_price: float
    costs: float
    net: float
    slippage: float
    mae: float
    mfe: float
    bars_held: int
    reason: str
    confidence: float


@dataclass
class NaiveSimulator:
    bars: Bars
    signals: list[int]
    config: SimulationConfig
    atr: list[float] | None = None
    confidence: list[float] | None = None
    cash: float = 0.0
    position: Position | None = None
    order: Order = field(default_factory=Order)
    last_signal: int | None = None
    ruined: bool = False
    equity: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    trades: list[NaiveTrade] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def run(self) -> NaiveSimulator:
        self.cash = self.config.initial_capital
        for t in range(len(self.bars)):
            self.at_open(t)
            self.inside_bar(t)
            close = float(self.bars.close[t])
            self.equity.append(self.value_at(close))
            self.held.append(self.position.side * self.position.units if self.position else 0.0)
            self.order = self.decision(t)
        if self.position and self.config.at_end == "close":
            last = len(self.bars) - 1
            self.close_position(
                last, float(self.bars.close[last]), self.half_spread(last, "close"), "end", last
            )
            self.equity[-1], self.held[-1] = self.cash, 0.0
        return self

    # -- what the account is worth

    def value_at(self, price: float) -> float:
        if self.position is None:
            return self.cash
        return self.cash + self.position.side * self.position.units * price

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- costs

    def commission(self, units: float, price: float) -> float:
        c = self.config.costs
        paid = c.commission_fixed + c.commission * units * price + c.commission_per_unit * units
        return max(paid, c.commission_minimum)

    def half_spread(self, t: int, when: str) -> float:
        if self.config.costs.spread == "none":
            return 0.0
        quotes = self.bars.quotes
        ask, bid = getattr(quotes, f"ask_{when}")[t], getattr(quotes, f"bid_{when}")[t]
        return max(float(ask) - float(bid), 0.0) / 2

    def most_units(self, budget: float, price: float) -> float:
        c = self.config.costs
        proportional = (budget - c.commission_fixed) / (price * (1 + c.commission) + c.commission_per_unit)
        return max(0.0, min(proportional, (budget - c.commission_minimum) / price))

    # -- fills

    def at_open(self, t: int) -> None:
        order, self.order = self.order, Order()
        price = float(self.bars.open[t])
        if order.close:
            self.close_position(t, price, self.half_spread(t, "open"), order.close, t - 1)
        if order.open_side:
            self.open_position(t, price, order)

    def open_position(self, t: int, opened: float, order: Order) -> None:
        side, sizing = order.open_side, self.config.sizing
        worse = opened * self.config.costs.slippage_rate + self.half_spread(t, "open")
        price = opened + side * worse
        equity = self.value_at(opened)
        free = equity - (self.position.units * opened if self.position else 0.0)
        if sizing.type == "fraction":
            units = self.most_units(sizing.fraction * equity, price)
        elif sizing.type == "cash":
            units = self.most_units(sizing.cash, price)
        elif sizing.type == "units":
            units = sizing.units
        else:
            units = sizing.risk * equity / self.risk_per_unit(price, order.atr)
        if units > self.most_units(free, price):
            units = self.most_units(free, price)
            self.count("entries_cut")
        if sizing.lot_step:
            units = math.floor(units / sizing.lot_step * (1 + 1e-12)) * sizing.lot_step
        if units <= 0:
            self.count("entries_of_size_zero")
            return
        paid = self.commission(units, price)
        self.cash -= side * units * price + paid
        if self.position is None:
            self.position = Position(
                side, units, price, t, paid, units * worse, order.confidence, order.atr, price, order.atr
            )
        else:
            p = self.position
            p.price = (p.price * p.units + price * units) / (p.units + units)
            p.units += units
            p.commission += paid
            p.lost += units * worse
            p.atr = order.atr

    def risk_per_unit(self, price: float, atr: float | None) -> float:
        s = self.config.stops
        distances = [price * rate for rate in (s.stop_loss, s.trailing_stop) if rate is not None]
        distances += [atr * times for times in (s.stop_loss_atr, s.trailing_stop_atr) if times is not None]
        return min(distances)

    def close_position(self, t: int, reference: float, half: float, reason: str, last_whole: int) -> None:
        p = self.position
        worse = half + (0.0 if reason == "take_profit" else reference * self.config.costs.slippage_rate)
        price = reference - p.side * worse
        paid = self.commission(p.units, price)
        self.cash += p.side * p.units * price - paid
        low, high = min(p.low, p.price, price), max(p.high, p.price, price)
        moves = sorted([p.side * (low - p.price) / p.price, p.side * (high - p.price) / p.price])
        self.trades.append(
            NaiveTrade(
                entry_row=p.row,
                exit_row=t,
                side=p.side,
                size=p.units,
                entry_price=p.price,
                exit_price=price,
                costs=p.commission + paid,
                net=p.side * p.units * (price - p.price) - p.commission - paid,
                slippage=p.lost + p.units * worse,
                mae=moves[0],
                mfe=moves[1],
                bars_held=last_whole - p.row + 1,
                reason=reason,
                confidence=p.confidence,
            )
        )
        self.position = None

    # -- stops

    def levels(self) -> tuple[float | None, str, float | None]:
        """The stop that holds now with its name, and the target."""
        p, s = self.position, self.config.stops
        stops, targets = [], []
        if s.stop_loss is not None:
            stops.append((p.price - p.side * p.price * s.stop_loss, 0, "stop_loss"))
        if s.stop_loss_atr is not None:
            stops.append((p.price - p.side * p.atr * s.stop_loss_atr, 0, "stop_loss"))
        if s.trailing_stop is not None:
            stops.append((p.best - p.side * p.best * s.trailing_stop, -1, "trailing_stop"))
        if s.trailing_stop_atr is not None:
            stops.append((p.best - p.side * p.trail_atr * s.trailing_stop_atr, -1, "trailing_stop"))
        if s.take_profit is not None:
            targets.append(p.price + p.side * p.price * s.take_profit)
        if s.take_profit_atr is not None:
            targets.append(p.price + p.side * p.atr * s.take_profit_atr)
        nearest = max(stops, key=lambda x: (p.side * x[0], x[1])) if stops else (None, 0, "")
        target = min(targets, key=lambda x: p.side * x) if targets else None
        return nearest[0], nearest[2], target

    def inside_bar(self, t: int) -> None:
        p = self.position
        if p is None:
            return
        opened, high, low = (float(getattr(self.bars, name)[t]) for name in ("open", "high", "low"))
        stop, name, target = self.levels()
        against, towards = (low, high) if p.side > 0 else (high, low)
        stop_hit = stop is not None and p.side * against <= p.side * stop
        target_hit = target is not None and p.side * towards >= p.side * target
        price, reason = None, ""
        if stop is not None and p.side * opened <= p.side * stop:
            price, reason = opened, name
            self.count("gap_fills")
        elif target is not None and p.side * opened >= p.side * target:
            price, reason = opened, "take_profit"
            self.count("gap_fills")
        elif stop_hit:
            price, reason = stop, name
            if target_hit:
                self.count("stop_and_target_touched")
        elif target_hit:
            price, reason = target, "take_profit"
        if price is not None:
            self.close_position(t, price, self.half_spread(t, "open"), reason, t - 1)
            return
        p.low, p.high = min(p.low, low), max(p.high, high)
        p.best = max(p.best, high) if p.side > 0 else min(p.best, low)

    # -- decisions

    def decision(self, t: int) -> Order:
        rules, signal, order = self.config.positions, self.signals[t], Order()
        p = self.position
        may_open = signal == 1 or (signal == -1 and rules.allow_short_from_flat)
        if p is not None:
            if self.value_at(float(self.bars.close[t])) <= 0:
                self.ruined = True
                order.close = "ruin"
                return order
            if signal == -p.side:
                order.close = "signal"
                if may_open and rules.reversal == "flip":
                    self.add_entry(order, t, signal)
                self.last_signal = t
                return order
            limit = self.config.stops.max_holding_bars
            if limit is not None and t - p.row + 1 >= limit:
                order.close = "time"
                return order
            if signal == p.side and rules.position_awareness:
                return order
        if may_open and not self.ruined:
            self.add_entry(order, t, signal)
        return order

    def add_entry(self, order: Order, t: int, signal: int) -> None:
        gap = self.config.positions.min_signal_separation_bars
        if self.last_signal is not None and t - self.last_signal < gap:
            self.count("entries_too_soon")
            return
        atr = None
        if self.config.stops.uses_atr:
            atr = self.atr[t]
            if not atr > 0:
                self.count("entries_without_atr")
                return
        order.open_side, order.atr = signal, atr
        order.confidence = self.confidence[t] if self.confidence is not None else math.nan
        self.last_signal = t
