"""What a simulation is told: capital, sizing, costs, stops, position rules. Frozen and checked once made.

Every field changes behaviour; features that the kernel does not have, have no field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ktrdr.errors import FieldError, InvalidInput, nearest

__all__ = ["Costs", "PositionRules", "SimulationConfig", "Sizing", "Stops"]


@dataclass(frozen=True, slots=True)
class Sizing:
    """How many units an entry buys or sells, decided at its fill price, net of its own costs.

    Parameters
    ----------
    type
        ``fraction`` of equity, fixed ``units``, fixed ``cash``, or ``risk``: the units at which being
        stopped out at the initial stop loses ``risk`` of equity (needs a stop loss).
    fraction, units, cash, risk
        The amount for the type of the same name. ``fraction`` and ``risk`` lie in (0, 1].
    lot_step
        Sizes are whole multiples of it, rounded down; 1 = whole units, 0 = any fraction.

    Notes
    -----
    Positions are fully funded: value plus entry costs never exceeds equity, whatever the type. Orders that
    had to be cut are counted (``entries_cut``); orders cut to nothing too (``entries_of_size_zero``).
    """

    type: Literal["fraction", "units", "cash", "risk"] = "fraction"
    fraction: float = 1.0
    units: float | None = None
    cash: float | None = None
    risk: float | None = None
    lot_step: float = 1.0

    def __post_init__(self) -> None:
        check = _Check(self, "sizing")
        check.choice("type", ("fraction", "units", "cash", "risk"))
        check.number("fraction", above=0.0, most=1.0)
        for name in ("units", "cash"):
            check.number(name, above=0.0, optional=True)
        check.number("risk", above=0.0, most=1.0, optional=True)
        check.number("lot_step", least=0.0)
        if self.type in ("units", "cash", "risk") and getattr(self, self.type) is None:
            check.fault(self.type, f"is required when sizing.type is '{self.type}'")
        check.finish()


@dataclass(frozen=True, slots=True)
class Costs:
    """What a fill costs.

    Parameters
    ----------
    commission
        Rate of the traded value (0.001 = 0.1 %).
    commission_per_unit, commission_fixed
        Money per unit and per fill, added to the rate.
    commission_minimum
        The least commission of one fill.
    slippage, slippage_bps
        How far a fill is worse than its reference price, as a rate or in 1/100 %; give one of them. A
        take-profit is a limit order and does not slip.
    spread
        ``quotes``: each fill also pays half the quoted spread (the open's for fills at the open and inside
        the bar, the close's at the close), which needs bars with bid and ask; ``none``: it does not.
    """

    commission: float = 0.0
    commission_per_unit: float = 0.0
    commission_fixed: float = 0.0
    commission_minimum: float = 0.0
    slippage: float = 0.0
    slippage_bps: float = 0.0
    spread: Literal["none", "quotes"] = "none"

    def __post_init__(self) -> None:
        check = _Check(self, "costs")
        check.number("commission", least=0.0, below=1.0)
        for name in ("commission_per_unit", "commission_fixed", "commission_minimum"):
            check.number(name, least=0.0)
        check.number("slippage", least=0.0, below=1.0)
        check.number("slippage_bps", least=0.0, below=10_000.0)
        check.choice("spread", ("none", "quotes"))
        if self.slippage and self.slippage_bps:
            check.fault("slippage_bps", "cannot be combined with costs.slippage; give one of them")
        check.finish()

    @property
    def slippage_rate(self) -> float:
        """The slippage as a rate, whichever way it was given."""
        return self.slippage or self.slippage_bps / 10_000.0


@dataclass(frozen=True, slots=True)
class Stops:
    """Orders that rest while a position is open; None switches one off.

    Parameters
    ----------
    stop_loss, take_profit, trailing_stop
        Distance as a rate of the entry price (trailing: of the best price since entry).
    stop_loss_atr, take_profit_atr, trailing_stop_atr
        Distance in ATRs; the ATR is the one known when the entry was decided. With both forms of one stop,
        the nearer level holds.
    atr_period
        Period of Wilder's ATR.
    max_holding_bars
        A position is closed at the open after it was held this many bars.
    """

    stop_loss: float | None = None
    take_profit: float | None = None
    trailing_stop: float | None = None
    stop_loss_atr: float | None = None
    take_profit_atr: float | None = None
    trailing_stop_atr: float | None = None
    atr_period: int = 14
    max_holding_bars: int | None = None

    def __post_init__(self) -> None:
        check = _Check(self, "stops")
        check.number("stop_loss", above=0.0, below=1.0, optional=True)
        check.number("trailing_stop", above=0.0, below=1.0, optional=True)
        check.number("take_profit", above=0.0, optional=True)
        for name in ("stop_loss_atr", "take_profit_atr", "trailing_stop_atr"):
            check.number(name, above=0.0, optional=True)
        check.number("atr_period", least=1, whole=True)
        check.number("max_holding_bars", least=1, whole=True, optional=True)
        check.finish()

    @property
    def uses_atr(self) -> bool:
        """True if any distance is given in ATRs."""
        return any(x is not None for x in (self.stop_loss_atr, self.take_profit_atr, self.trailing_stop_atr))

    @property
    def has_stop_loss(self) -> bool:
        """True if the loss of a new position is bounded by an initial stop (fixed or trailing)."""
        return any(
            x is not None
            for x in (self.stop_loss, self.stop_loss_atr, self.trailing_stop, self.trailing_stop_atr)
        )


@dataclass(frozen=True, slots=True)
class PositionRules:
    """How a signal becomes an order, given the position.

    Parameters
    ----------
    position_awareness
        True: BUY while long and SELL while short do nothing. False: each adds another sized order to the
        position (as far as equity funds it).
    allow_short_from_flat
        True: SELL opens short positions. False: SELL only closes long ones.
    min_signal_separation_bars
        An entry is dropped unless its signal comes at least this many bars after the last signal that
        became an order. Exits are never held back.
    reversal
        ``flip``: a signal against the position closes it and opens the other side at the same open.
        ``close_then_open``: it only closes; the next such signal, seen while flat, opens.
    """

    position_awareness: bool = True
    allow_short_from_flat: bool = False
    min_signal_separation_bars: int = 0
    reversal: Literal["flip", "close_then_open"] = "flip"

    def __post_init__(self) -> None:
        check = _Check(self, "positions")
        check.flag("position_awareness")
        check.flag("allow_short_from_flat")
        check.number("min_signal_separation_bars", least=0, whole=True)
        check.choice("reversal", ("flip", "close_then_open"))
        check.finish()


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """Everything that decides what a signal array earns, apart from the bars.

    Parameters
    ----------
    initial_capital
        E_0, the equity at the close of the first bar.
    sizing, costs, stops, positions
        See their classes.
    at_end
        ``close``: an open position is closed at the last close, with costs. ``hold``: it is left open and
        its unrealised profit is part of the last equity.
    risk_free_rate, minimum_return
        Annual rates for the statistics (Sharpe and alpha; Sortino and Omega).

    Raises
    ------
    InvalidInput
        If a value is outside its range; ``errors`` name every one.
    """

    initial_capital: float = 100_000.0
    sizing: Sizing = field(default_factory=Sizing)
    costs: Costs = field(default_factory=Costs)
    stops: Stops = field(default_factory=Stops)
    positions: PositionRules = field(default_factory=PositionRules)
    at_end: Literal["close", "hold"] = "close"
    risk_free_rate: float = 0.0
    minimum_return: float = 0.0

    def __post_init__(self) -> None:
        check = _Check(self, "")
        check.number("initial_capital", above=0.0)
        check.choice("at_end", ("close", "hold"))
        for name in ("risk_free_rate", "minimum_return"):
            check.number(name, above=-1.0)
        if self.sizing.type == "risk" and not self.stops.has_stop_loss:
            check.fault("sizing", "type 'risk' needs a stop loss: set stops.stop_loss or stops.stop_loss_atr")
        check.finish()

    def to_json(self) -> dict[str, Any]:
        """Plain nested values that :meth:`from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SimulationConfig:
        """Read nested plain values; absent keys take their defaults.

        Raises
        ------
        InvalidInput
            If a key is unknown (the message has the nearest valid one) or a value is out of range.
        """
        parts = {"sizing": Sizing, "costs": Costs, "stops": Stops, "positions": PositionRules}
        known = _known(cls, "", document)
        for name, part in parts.items():
            if name in known:
                known[name] = part(**_known(part, name, known[name]))
        return cls(**known)


def _known(cls: type, path: str, document: object) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise InvalidInput(f"'{path}' must be a mapping of keys to values, got {document!r}.")
    valid = [f.name for f in fields(cls)]
    errors = [
        FieldError(f"{f'/{path}' if path else ''}/{key}", f"unknown key{nearest(str(key), valid)}")
        for key in document
        if key not in valid
    ]
    if errors:
        raise InvalidInput(f"Unknown simulation settings. Valid here: {', '.join(valid)}.", errors)
    return dict(document)


class _Check:
    """Collects the faults of one dataclass and raises them together."""

    def __init__(self, subject: object, path: str) -> None:
        self._subject, self._path, self._errors = subject, path, list[FieldError]()

    def fault(self, name: str, message: str) -> None:
        self._errors.append(FieldError(f"{f'/{self._path}' if self._path else ''}/{name}", message))

    def choice(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self._subject, name)
        if value not in allowed:
            hint = nearest(str(value), allowed)
            self.fault(name, f"must be one of {', '.join(allowed)}, got {value!r}{hint}")

    def flag(self, name: str) -> None:
        value = getattr(self._subject, name)
        if not isinstance(value, bool):
            self.fault(name, f"must be true or false, got {value!r}")

    def number(
        self,
        name: str,
        *,
        least: float | None = None,
        above: float | None = None,
        most: float | None = None,
        below: float | None = None,
        whole: bool = False,
        optional: bool = False,
    ) -> None:
        value = getattr(self._subject, name)
        if value is None and optional:
            return
        accepted = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted) or not math.isfinite(value):
            self.fault(name, f"must be a {'whole' if whole else 'finite'} number, got {value!r}")
            return
        limits: list[tuple[float | None, bool, str]] = [
            (least, least is not None and value < least, ">="),
            (above, above is not None and value <= above, ">"),
            (most, most is not None and value > most, "<="),
            (below, below is not None and value >= below, "<"),
        ]
        for limit, broken, sign in limits:
            if broken:
                self.fault(name, f"must be {sign} {limit:g}, got {value!r}")

    def finish(self) -> None:
        if self._errors:
            count = len(self._errors)
            raise InvalidInput(
                f"The simulation settings have {count} fault{'s' if count > 1 else ''}:", self._errors
            )
