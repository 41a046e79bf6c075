"""Fuzzy sets: membership functions, the words they stand for, and where those words have gaps."""

from ktrdr.fuzzy.curves import Bell, Gaussian, Sigmoid
from ktrdr.fuzzy.edges import PiShape, SShape, Trapezoidal, Triangular, ZShape
from ktrdr.fuzzy.membership import MembershipFunction
from ktrdr.fuzzy.parse import SHAPES, membership, parse_membership
from ktrdr.fuzzy.variable import LinguisticVariable

__all__ = [
    "SHAPES",
    "Bell",
    "Gaussian",
    "LinguisticVariable",
    "MembershipFunction",
    "PiShape",
    "SShape",
    "Sigmoid",
    "Trapezoidal",
    "Triangular",
    "ZShape",
    "membership",
    "parse_membership",
]
