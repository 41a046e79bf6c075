"""The keys of ``decisions`` and ``backtest``."""

from __future__ import annotations

from ktrdr.strategies.document import (
    BacktestConfig,
    CostConfig,
    DecisionConfig,
    SizingConfig,
    StopConfig,
)
from ktrdr.strategies.kinds import Choice, Flag, Number, Optional, Whole
from ktrdr.strategies.sections import Key, Section, Variant

__all__ = ["BACKTEST", "DECISIONS"]

DECISIONS = Section(
    DecisionConfig,
    (
        Key(
            "output_format",
            Choice(("classification",)),
            "The network gives probabilities of BUY, HOLD, SELL.",
        ),
        Key("confidence_threshold", Number(least=0, most=1), "A probability below it is no signal."),
        Key(
            "position_awareness",
            Flag(),
            "`true`: BUY while long and SELL while short do nothing. `false`: each adds to the position.",
        ),
        Key(
            "allow_short_from_flat",
            Flag(),
            "`true`: SELL opens short positions. `false`: it only closes long ones.",
        ),
        Key(
            "min_signal_separation_bars",
            Whole(0, 1_000_000),
            "An entry needs this many bars since the last signal that became an order; exits never wait.",
        ),
    ),
)

_LOT = Key(
    "lot_step", Number(least=0), "Sizes are whole multiples of it, rounded down; 1: whole units, 0: any."
)
_SIZING = Variant(
    "type",
    "What decides the size of an entry.",
    {
        "fraction": Section(
            SizingConfig,
            (Key("fraction", Number(above=0, most=1), "Share of the equity."), _LOT),
            fixed={"type": "fraction"},
        ),
        "units": Section(
            SizingConfig,
            (Key("units", Number(above=0), "Units per entry.", True), _LOT),
            fixed={"type": "units"},
        ),
        "cash": Section(
            SizingConfig,
            (Key("cash", Number(above=0), "Money per entry.", True), _LOT),
            fixed={"type": "cash"},
        ),
        "risk": Section(
            SizingConfig,
            (Key("risk", Number(above=0, most=1), "Share of equity lost at the initial stop.", True), _LOT),
            fixed={"type": "risk"},
        ),
    },
    default="fraction",
)


def _one_slippage(costs: CostConfig) -> list[tuple[str, str]]:
    both = costs.slippage and costs.slippage_bps
    return [("slippage_bps", "cannot be combined with slippage; give one of them")] if both else []


_COSTS = Section(
    CostConfig,
    (
        Key("commission", Number(least=0, below=1), "Rate of the traded value (0.001 = 0.1 %)."),
        Key("commission_per_unit", Number(least=0), "Money per unit, added."),
        Key("commission_fixed", Number(least=0), "Money per fill, added."),
        Key("commission_minimum", Number(least=0), "The least commission of one fill."),
        Key("slippage", Number(least=0, below=1), "How much worse a fill is than its price, as a rate."),
        Key("slippage_bps", Number(least=0, below=10_000), "The same in 1/100 %."),
        Key(
            "spread",
            Choice(("none", "quotes")),
            "`quotes`: a fill pays half the quoted spread, where there are bid and ask.",
        ),
    ),
    _one_slippage,
)

_STOP_RATE = Optional(Number(above=0, below=1))
_STOP_ATR = Optional(Number(above=0))
_STOPS = Section(
    StopConfig,
    (
        Key("stop_loss", _STOP_RATE, "Distance of the stop from the entry price, as a rate."),
        Key(
            "take_profit",
            Optional(Number(above=0)),
            "Distance of the target from the entry price, as a rate.",
        ),
        Key("trailing_stop", _STOP_RATE, "Distance of the stop from the best price since entry, as a rate."),
        Key("stop_loss_atr", _STOP_ATR, "Distance of the stop in ATRs."),
        Key("take_profit_atr", _STOP_ATR, "Distance of the target in ATRs."),
        Key("trailing_stop_atr", _STOP_ATR, "Distance of the trailing stop in ATRs."),
        Key("atr_period", Whole(1, 1000), "Period of that ATR."),
        Key("max_holding_bars", Optional(Whole(1, 1_000_000)), "Bars after which a position is closed."),
    ),
)


def _risk_needs_stop(backtest: BacktestConfig) -> list[tuple[str, str]]:
    stops = backtest.stops
    bounded = (stops.stop_loss, stops.stop_loss_atr, stops.trailing_stop, stops.trailing_stop_atr)
    if backtest.sizing.type == "risk" and all(stop is None for stop in bounded):
        return [("sizing", "type 'risk' needs a stop: set stops.stop_loss or stops.stop_loss_atr")]
    return []


BACKTEST = Section(
    BacktestConfig,
    (
        Key("initial_capital", Number(above=0, below=1e15), "Money at the start."),
        Key("fill", Choice(("next_open",)), "A decision at a close fills at the next open."),
        Key("sizing", _SIZING, "How much one entry buys."),
        Key("costs", _COSTS, "What a fill costs."),
        Key("stops", _STOPS, "Exits without a signal; `null`: none of that kind."),
        Key(
            "reversal",
            Choice(("flip", "close_then_open")),
            "A signal against the position closes it and opens the other side (`flip`), or only closes it.",
        ),
        Key("at_end", Choice(("close", "hold")), "What becomes of a position open at the last bar."),
        Key("risk_free_rate", Number(above=-1, most=10), "Annual rate subtracted in Sharpe ratio and alpha."),
        Key(
            "minimum_return", Number(above=-1, most=10), "Annual rate aimed at, in Sortino and Omega ratios."
        ),
    ),
    _risk_needs_stop,
)
