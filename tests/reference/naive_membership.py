"""Membership functions from their textbook definitions, one number at a time, without NumPy."""

from __future__ import annotations

import math

from ktrdr.fuzzy import (
    Bell,
    Gaussian,
    MembershipFunction,
    PiShape,
    Sigmoid,
    SShape,
    Trapezoidal,
    Triangular,
    ZShape,
)


def _exp(value: float) -> float:
    return math.inf if value > 709.0 else math.exp(value)


def _s(x: float, a: float, b: float) -> float:
    """Zadeh's S-function, case by case."""
    if x <= a:
        return 0.0
    if x <= (a + b) / 2.0:
        return 2.0 * ((x - a) / (b - a)) ** 2
    if x < b:
        return 1.0 - 2.0 * ((x - b) / (b - a)) ** 2
    return 1.0


def _z(x: float, a: float, b: float) -> float:
    return 1.0 - _s(x, a, b)


def _trapezoid(x: float, a: float, b: float, c: float, d: float) -> float:
    if x < a or x > d:
        return 0.0
    if x < b:
        return 1.0 if a == -math.inf else (x - a) / (b - a)
    if x <= c:
        return 1.0
    return 1.0 if d == math.inf else (d - x) / (d - c)


def naive_grade(mf: MembershipFunction, x: float) -> float:
    """The grade of one number; NaN for NaN."""
    if math.isnan(x):
        return math.nan
    match mf:
        case Triangular(a, b, c):
            return _trapezoid(x, a, b, b, c)
        case Trapezoidal(a, b, c, d):
            return _trapezoid(x, a, b, c, d)
        case Gaussian(mean, sigma):
            return math.exp(-0.5 * ((x - mean) / sigma) ** 2)
        case Bell(center, width, slope):
            return (
                1.0 / (1.0 + _exp(2.0 * slope * (math.log(abs(x - center)) - math.log(width))))
                if x != center
                else 1.0
            )
        case Sigmoid(center, slope):
            return 1.0 / (1.0 + _exp(-slope * (x - center)))
        case SShape(a, b):
            return _s(x, a, b)
        case ZShape(a, b):
            return _z(x, a, b)
        case PiShape(a, b, c, d):
            left = 1.0 if a == -math.inf else float(x >= a) if a == b else _s(x, a, b)
            right = 1.0 if d == math.inf else float(x <= d) if c == d else _z(x, c, d)
            return left * right
    raise AssertionError(mf)
