"""What an indicator declares about itself: parameters with ranges, outputs, warm-up, origin rule, formula.

Shape suffix: ``T`` = bars in time order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ktrdr.bars import Bars, FloatArray
from ktrdr.errors import FieldError, InvalidInput, nearest

__all__ = ["PRICE_SOURCES", "Columns", "IndicatorSpec", "Parameter", "Params", "Value", "decay_rows"]

Value = int | float | str
Params = Mapping[str, Value]

#: Prices an indicator of one series can be taken of; the last three are means of two, three and four prices.
PRICE_SOURCES = ("open", "high", "low", "close", "hl2", "hlc3", "ohlc4")

#: A seed's weight below this counts as forgotten; see :func:`decay_rows`.
ORIGIN_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Columns:
    """The price and volume arrays an indicator reads, each (T,) float64."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    @classmethod
    def of(cls, bars: Bars) -> Columns:
        """The columns of bars; views, not copies."""
        return cls(bars.open, bars.high, bars.low, bars.close, bars.volume)

    def price(self, source: Value) -> FloatArray:
        """The series named by a ``source`` parameter, (T,)."""
        match source:
            case "hl2":
                return (self.high + self.low) / 2.0
            case "hlc3":
                return (self.high + self.low + self.close) / 3.0
            case "ohlc4":
                return (self.open + self.high + self.low + self.close) / 4.0
            case _:
                series: FloatArray = getattr(self, str(source))
                return series


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: a whole number, a number, or a choice of words.

    ``minimum`` and ``maximum`` are inclusive and belong to numbers; ``choices`` belongs to words.
    """

    name: str
    kind: Literal["int", "float", "choice"]
    default: Value
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: tuple[str, ...] = ()
    doc: str = ""

    @property
    def accepted(self) -> str:
        """The accepted values in words."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        noun = "a whole number" if self.kind == "int" else "a number"
        return f"{noun} from {self.minimum:g} to {self.maximum:g}"

    def read(self, value: object) -> Value | None:
        """The value in its own type, or None if it is not acceptable."""
        if self.kind == "choice":
            return value if isinstance(value, str) and value in self.choices else None
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            return None
        if not self.minimum <= value <= self.maximum or (self.kind == "int" and value != int(value)):
            return None
        return int(value) if self.kind == "int" else float(value)


@dataclass(frozen=True, slots=True)
class IndicatorSpec:
    """One entry of the catalog.

    Laws, each tested for every entry:

    - the value at row t uses rows 0..t only; recomputing on ``bars[:t]`` gives the same bits up to t
      (unless ``repaints``, and such an indicator is refused as a model input);
    - rows before ``lookback(params)`` are NaN in all outputs, rows from there on are finite in all outputs;
    - after ``lookback + unstable`` rows an earlier origin changes the value by less than 1e-3 of the
      indicator's range (``origin`` says why).

    Attributes
    ----------
    outputs
        Names in order; the first is the primary one. A single output is named as the indicator.
    origin
        ``window``: remembers a fixed number of bars. ``recursive``: remembers its seed, ever less.
        ``cumulative``: the level itself counts from the first bar, for ever.
    bounds
        The closed interval all outputs lie in, or None.
    flat
        What the outputs are where no price moves.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    function: Callable[[Columns, Params], tuple[FloatArray, ...]] = field(repr=False)
    lookback_rows: Callable[[Params], int] = field(repr=False)
    unstable_rows: Callable[[Params], int] = field(repr=False, default=lambda _: 0)
    constraint: Callable[[Params], FieldError | None] = field(repr=False, default=lambda _: None)
    origin: Literal["window", "recursive", "cumulative"] = "window"
    needs_volume: bool = False
    repaints: bool = False
    bounds: tuple[float, float] | None = None
    formula: str = ""
    flat: str = ""
    reference: str = ""

    @property
    def primary(self) -> str:
        """The output used where none is named."""
        return self.outputs[0]

    def check(self, params: Mapping[str, object]) -> dict[str, Value]:
        """Fill in defaults and validate.

        Returns
        -------
        dict
            Every parameter of the indicator, in catalog order, in its own type.

        Raises
        ------
        InvalidInput
            With one :class:`FieldError` per unknown name, value out of range or wrong type.
        """
        values: dict[str, Value] = {}
        faults = list(self._unknown(params))
        for parameter in self.parameters:
            given = params.get(parameter.name, parameter.default)
            value = parameter.read(given)
            if value is None:
                seen = f"'{given}'" if isinstance(given, str) else f"{given}"
                faults.append(
                    FieldError(f"/{parameter.name}", f"{seen} is not accepted; give {parameter.accepted}")
                )
            else:
                values[parameter.name] = value
        if not faults and (fault := self.constraint(values)) is not None:
            faults.append(fault)
        if faults:
            raise InvalidInput(f"The parameters of indicator '{self.name}' are not valid", faults)
        return values

    def _unknown(self, params: Mapping[str, object]) -> Iterator[FieldError]:
        names = [parameter.name for parameter in self.parameters]
        for name in params:
            if name not in names:
                accepted = f"accepted: {', '.join(names)}" if names else "it takes none"
                yield FieldError(f"/{name}", f"no such parameter{nearest(str(name), names)} ({accepted})")

    def lookback(self, params: Mapping[str, object]) -> int:
        """Rows at the start that are NaN in every output."""
        return self.lookback_rows(self.check(params))

    def unstable(self, params: Mapping[str, object]) -> int:
        """Further rows until the seed's weight is below 1e-3; 0 for windows and cumulative indicators."""
        return self.unstable_rows(self.check(params))


def decay_rows(*poles: float, tolerance: float = ORIGIN_TOLERANCE) -> int:
    """Rows until a chain of exponential smoothings has forgotten its seeds.

    Stage i is ``y[t] = p[i] y[t-1] + (1 - p[i]) x[t]`` fed by stage i-1. Every stage starts with an error of 1
    (its seed was an average over other bars); the answer is the first row at which all errors stay below
    ``tolerance``.

    Parameters
    ----------
    *poles
        ``p`` of each stage in [0, 1): (n-1)/(n+1) for an EMA of n bars, (n-1)/n for Wilder's smoothing.
    """
    errors = [1.0] * len(poles)
    rows = 0
    while max(errors) >= tolerance:
        fed = 0.0
        for stage, pole in enumerate(poles):
            fed = pole * errors[stage] + (1.0 - pole) * fed
            errors[stage] = fed
        rows += 1
    return rows
