"""Shapes given by points on the axis: triangular, trapezoidal, s, z and pi; open shoulders by infinite points."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import ClassVar, final

import numpy as np

from ktrdr.bars import FloatArray
from ktrdr.errors import FieldError
from ktrdr.fuzzy.membership import MembershipFunction

__all__ = ["PiShape", "SShape", "Trapezoidal", "Triangular", "ZShape"]


def _rise(x_T: FloatArray, foot: float, top: float, out_T: FloatArray) -> None:
    """Linear ascent from 0 at ``foot`` to 1 at ``top``, not yet limited to [0, 1]; a step where they are equal."""
    if foot == top:
        out_T[:] = np.where(np.isnan(x_T), np.nan, x_T >= top)
    else:
        np.subtract(x_T, foot, out=out_T)
        np.divide(out_T, top - foot, out=out_T)


def _fall(x_T: FloatArray, top: float, foot: float, out_T: FloatArray) -> None:
    """The mirror image: 1 at ``top``, 0 at ``foot``."""
    if foot == top:
        out_T[:] = np.where(np.isnan(x_T), np.nan, x_T <= top)
    else:
        np.subtract(foot, x_T, out=out_T)
        np.divide(out_T, foot - top, out=out_T)


def _plateau(x_T: FloatArray, a: float, b: float, c: float, d: float, out_T: FloatArray) -> None:
    """Up from a to b, 1 until c, down to d, in [0, 1]; no ascent for ``a = -inf``, no descent for ``d = inf``."""
    if d == math.inf:
        _rise(x_T, a, b, out_T)
    elif a == -math.inf:
        _fall(x_T, c, d, out_T)
    else:
        _rise(x_T, a, b, out_T)
        other = np.empty_like(out_T)
        _fall(x_T, c, d, other)
        np.minimum(out_T, other, out=out_T)
    np.maximum(out_T, 0.0, out=out_T)
    np.minimum(out_T, 1.0, out=out_T)


def _round_off(u_T: FloatArray) -> None:
    """Zadeh's two parabolas on [0, 1], in place: ``2u^2`` below one half, ``1 - 2(1-u)^2`` above."""
    upper = u_T > 0.5
    mirrored = 1.0 - u_T
    np.minimum(u_T, mirrored, out=u_T)
    np.square(u_T, out=u_T)
    np.multiply(u_T, 2.0, out=u_T)
    np.subtract(1.0, u_T, out=u_T, where=upper)


def _order_faults(points: tuple[float, ...]) -> list[FieldError]:
    if all(left <= right for left, right in pairwise(points)) and points[0] < points[-1]:
        return []
    names = " <= ".join("abcd"[: len(points)])
    return [
        FieldError(
            "/points",
            f"points must not decrease ({names}) nor all be equal, seen {[_short(p) for p in points]}",
        )
    ]


def _short(point: float) -> float | int:
    return int(point) if abs(point) < 1e15 and point == int(point) else point


def _plateau_faults(*points: float) -> list[FieldError]:
    """Faults of a shape with a foot, one or two tops and a foot."""
    if faults := _order_faults(points):
        return faults
    foot_up, top_first, top_last, foot_down = points[0], points[1], points[-2], points[-1]
    if foot_up == -math.inf and foot_down == math.inf:
        why = "a set open on both sides contains everything; give one side a point"
    elif top_first == math.inf or top_last == -math.inf:
        why = "the top must lie at finite points or reach to an open shoulder"
    elif any(math.isinf(right - left) for left, right in pairwise(p for p in points if math.isfinite(p))):
        why = "the points lie too far apart for 64-bit numbers"
    else:
        return []
    return [FieldError("/points", f"{why}, seen {[_short(p) for p in points]}")]


@final
@dataclass(frozen=True, slots=True)
class Triangular(MembershipFunction):
    """0 at ``a``, 1 at ``b``, 0 at ``c``; ``a = -inf`` or ``c = inf`` keeps that side at 1; ``a = b`` is a step."""

    type: ClassVar[str] = "triangular"
    a: float
    b: float
    c: float

    def __post_init__(self) -> None:
        self._refuse(self._read_numbers() or _plateau_faults(self.a, self.b, self.c))

    @property
    def support(self) -> tuple[float, float]:
        """From ``a`` to ``c``."""
        return self.a, self.c

    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """See :meth:`MembershipFunction.fill`."""
        _plateau(x_T, self.a, self.b, self.b, self.c, out_T)


@final
@dataclass(frozen=True, slots=True)
class Trapezoidal(MembershipFunction):
    """0 at ``a``, 1 from ``b`` to ``c``, 0 at ``d``; infinite ends are open shoulders, equal points steps."""

    type: ClassVar[str] = "trapezoidal"
    a: float
    b: float
    c: float
    d: float

    def __post_init__(self) -> None:
        self._refuse(self._read_numbers() or _plateau_faults(self.a, self.b, self.c, self.d))

    @property
    def support(self) -> tuple[float, float]:
        """From ``a`` to ``d``."""
        return self.a, self.d

    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """See :meth:`MembershipFunction.fill`."""
        _plateau(x_T, self.a, self.b, self.c, self.d, out_T)


@final
@dataclass(frozen=True, slots=True)
class PiShape(MembershipFunction):
    """A trapezoid with rounded edges: up from ``a`` to ``b``, 1 until ``c``, down to ``d``, each side two parabolas."""

    type: ClassVar[str] = "pi_shape"
    a: float
    b: float
    c: float
    d: float

    def __post_init__(self) -> None:
        self._refuse(self._read_numbers() or _plateau_faults(self.a, self.b, self.c, self.d))

    @property
    def support(self) -> tuple[float, float]:
        """From ``a`` to ``d``."""
        return self.a, self.d

    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """See :meth:`MembershipFunction.fill`."""
        _plateau(x_T, self.a, self.b, self.c, self.d, out_T)
        _round_off(out_T)


@final
@dataclass(frozen=True, slots=True)
class SShape(MembershipFunction):
    """0 up to ``a``, rising in two parabolas, 1 from ``b`` on.

    References
    ----------
    Zadeh (1975), Calculus of fuzzy restrictions (the S-function).
    """

    type: ClassVar[str] = "s_shape"
    a: float
    b: float

    def __post_init__(self) -> None:
        self._refuse(self._read_numbers() or _finite_pair(self))

    @property
    def support(self) -> tuple[float, float]:
        """From ``a`` upwards."""
        return self.a, math.inf

    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """See :meth:`MembershipFunction.fill`."""
        _plateau(x_T, self.a, self.b, math.inf, math.inf, out_T)
        _round_off(out_T)


@final
@dataclass(frozen=True, slots=True)
class ZShape(MembershipFunction):
    """The mirror image of :class:`SShape`: 1 up to ``a``, 0 from ``b`` on."""

    type: ClassVar[str] = "z_shape"
    a: float
    b: float

    def __post_init__(self) -> None:
        self._refuse(self._read_numbers() or _finite_pair(self))

    @property
    def support(self) -> tuple[float, float]:
        """Up to ``b``."""
        return -math.inf, self.b

    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """See :meth:`MembershipFunction.fill`."""
        _plateau(x_T, -math.inf, -math.inf, self.a, self.b, out_T)
        _round_off(out_T)


def _finite_pair(shape: SShape | ZShape) -> list[FieldError]:
    points: tuple[float, ...] = astuple(shape)
    faults = _order_faults(points)
    if not faults and not all(map(math.isfinite, points)):
        faults.append(FieldError("/points", f"both points must be finite, seen {list(points)}"))
    return faults or _plateau_faults(*points, math.inf)
