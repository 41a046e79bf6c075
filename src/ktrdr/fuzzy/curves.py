"""Shapes given by a centre and a scale: gaussian, generalised bell and sigmoid."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, final

import numpy as np

from ktrdr.bars import FloatArray
from ktrdr.errors import FieldError
from ktrdr.fuzzy.membership import NEGLIGIBLE, MembershipFunction

__all__ = ["Bell", "Gaussian", "Sigmoid"]


def _finite(shape: MembershipFunction) -> list[FieldError]:
    faults = shape._read_numbers()
    return faults or [
        FieldError(f"/{f.name}", f"must be finite, seen {getattr(shape, f.name)}")
        for f in fields(shape)  # type: ignore[arg-type]
        if not math.isfinite(getattr(shape, f.name))
    ]


def _positive(**values: float) -> list[FieldError]:
    return [FieldError(f"/{k}", f"must be greater than 0, seen {v:g}") for k, v in values.items() if v <= 0.0]


@final
@dataclass(frozen=True, slots=True)
class Gaussian(MembershipFunction):
    """``exp(-((x - mean)/sigma)^2 / 2)``."""

    type: ClassVar[str] = "gaussian"
    mean: float
    sigma: float

    def __post_init__(self) -> None:
        self._refuse(_finite(self) or _positive(sigma=self.sigma))

    @property
    def support(self) -> tuple[float, float]:
        """Where the grade is at least 0.01: about three sigma to both sides."""
        reach = self.sigma * math.sqrt(-2.0 * math.log(NEGLIGIBLE))
        return self.mean - reach, self.mean + reach

    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """See :meth:`MembershipFunction.fill`."""
        np.subtract(x_T, self.mean, out=out_T)
        np.divide(out_T, self.sigma, out=out_T)
        np.square(out_T, out=out_T)
        np.multiply(out_T, -0.5, out=out_T)
        np.exp(out_T, out=out_T)


@final
@dataclass(frozen=True, slots=True)
class Bell(MembershipFunction):
    """``1/(1 + |(x - center)/width|^(2 slope))``: one half at ``center +- width``, steeper with ``slope``.

    References
    ----------
    Jang (1993), ANFIS, IEEE Transactions on Systems, Man and Cybernetics 23(3).
    """

    type: ClassVar[str] = "bell"
    center: float
    width: float
    slope: float

    def __post_init__(self) -> None:
        self._refuse(_finite(self) or _positive(width=self.width, slope=self.slope))

    @property
    def support(self) -> tuple[float, float]:
        """Where the grade is at least 0.01."""
        exponent = math.log(1.0 / NEGLIGIBLE - 1.0) / (2.0 * self.slope)
        reach = self.width * math.exp(exponent) if exponent < 700.0 else math.inf
        return self.center - reach, self.center + reach

    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """See :meth:`MembershipFunction.fill`."""
        np.subtract(x_T, self.center, out=out_T)
        np.divide(out_T, self.width, out=out_T)
        np.square(out_T, out=out_T)
        if self.slope != 1.0:
            np.power(out_T, self.slope, out=out_T)
        np.add(out_T, 1.0, out=out_T)
        np.divide(1.0, out_T, out=out_T)


@final
@dataclass(frozen=True, slots=True)
class Sigmoid(MembershipFunction):
    """``1/(1 + exp(-slope (x - center)))``; rises for a positive slope, falls for a negative one."""

    type: ClassVar[str] = "sigmoid"
    center: float
    slope: float

    def __post_init__(self) -> None:
        faults = _finite(self)
        if not faults and self.slope == 0.0:
            faults.append(FieldError("/slope", "must not be 0: the grade would be 0.5 everywhere"))
        self._refuse(faults)

    @property
    def support(self) -> tuple[float, float]:
        """Where the grade is at least 0.01; open on the upper side of the slope."""
        edge = self.center - math.log(1.0 / NEGLIGIBLE - 1.0) / self.slope
        return (edge, math.inf) if self.slope > 0.0 else (-math.inf, edge)

    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """See :meth:`MembershipFunction.fill`."""
        np.subtract(x_T, self.center, out=out_T)
        np.multiply(out_T, -self.slope, out=out_T)
        np.exp(out_T, out=out_T)
        np.add(out_T, 1.0, out=out_T)
        np.divide(1.0, out_T, out=out_T)
