"""What a single value may be: each kind reads a node, describes itself for the documentation and as JSON Schema.

A kind that finds a fault records it and returns ``FAULTY``; reading goes on, so that one run lists every fault.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from ktrdr.errors import InvalidInput, nearest
from ktrdr.strategies.yaml_tree import Faults, Node, ScalarNode
from ktrdr.timeframe import Timeframe

__all__ = [
    "FAULTY",
    "Choice",
    "Day",
    "Flag",
    "Kind",
    "Number",
    "Optional",
    "Text",
    "TimeframeCode",
    "Whole",
    "seen",
]


class _Faulty:
    def __repr__(self) -> str:
        return "FAULTY"


FAULTY: Final = _Faulty()


class Kind(ABC):
    """One kind of value."""

    @abstractmethod
    def read(self, node: Node, faults: Faults) -> Any:
        """The checked value, or ``FAULTY`` after recording why."""

    @abstractmethod
    def json(self) -> dict[str, Any]:
        """JSON Schema of the value."""

    @abstractmethod
    def words(self) -> tuple[str, str]:
        """Type and range, in the words of the reference page."""


@dataclass(frozen=True)
class Text(Kind):
    """Text, optionally of a pattern that ``rule`` describes."""

    pattern: str | None = None
    rule: str = ""

    def read(self, node: Node, faults: Faults) -> Any:
        if not isinstance(node, ScalarNode) or node.value is None:
            faults.add(node, f"must be text, got {seen(node)}")
            return FAULTY
        if self.pattern is not None and not re.fullmatch(self.pattern, node.text):
            faults.add(node, f"'{node.text[:80]}' is not possible here: {self.rule}")
            return FAULTY
        return node.text

    def json(self) -> dict[str, Any]:
        return {"type": "string", **({"pattern": f"^{self.pattern}$"} if self.pattern else {})}

    def words(self) -> tuple[str, str]:
        return "text", self.rule


@dataclass(frozen=True)
class Choice(Kind):
    """One word out of several."""

    options: tuple[str, ...]

    def read(self, node: Node, faults: Faults) -> Any:
        if isinstance(node, ScalarNode) and node.text in self.options:
            return node.text
        hint = nearest(node.text, self.options) if isinstance(node, ScalarNode) else ""
        accepted = ", ".join(self.options)
        faults.add(node, f"must be {'one of ' * (len(self.options) > 1)}{accepted}, got {seen(node)}{hint}")
        return FAULTY

    def json(self) -> dict[str, Any]:
        return {"enum": list(self.options)}

    def words(self) -> tuple[str, str]:
        return "word", ", ".join(f"`{option}`" for option in self.options)


@dataclass(frozen=True)
class Flag(Kind):
    """true or false."""

    def read(self, node: Node, faults: Faults) -> Any:
        if isinstance(node, ScalarNode) and isinstance(node.value, bool):
            return node.value
        faults.add(node, f"must be true or false, got {seen(node)}")
        return FAULTY

    def json(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def words(self) -> tuple[str, str]:
        return "flag", "`true`, `false`"


@dataclass(frozen=True)
class Number(Kind):
    """A finite number within bounds: ``least`` and ``most`` are included, ``above`` and ``below`` are not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def read(self, node: Node, faults: Faults) -> Any:
        value = node.value if isinstance(node, ScalarNode) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            faults.add(node, f"must be {self._noun()}, got {seen(node)}")
            return FAULTY
        return self._within(value, node, faults)

    def _noun(self) -> str:
        return f"a number{self._range(' ')}"

    def _within(self, value: float, node: Node, faults: Faults) -> Any:
        inside = (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if not inside:
            faults.add(node, f"must be {self._noun()}, got {seen(node)}")
            return FAULTY
        return self._value(value)

    def _value(self, value: float) -> float:
        return float(value)

    def _range(self, before: str = "") -> str:
        limits = ((">=", self.least), (">", self.above), ("<=", self.most), ("<", self.below))
        said = " and ".join(f"{sign} {limit:,}" for sign, limit in limits if limit is not None)
        return f"{before}{said}" if said else ""

    def json(self) -> dict[str, Any]:
        limits = {
            "minimum": self.least,
            "maximum": self.most,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
        }
        return {"type": "number", **{name: limit for name, limit in limits.items() if limit is not None}}

    def words(self) -> tuple[str, str]:
        return "number", self._range()


@dataclass(frozen=True)
class Whole(Number):
    """A whole number within bounds."""

    def read(self, node: Node, faults: Faults) -> Any:
        if isinstance(node, ScalarNode) and isinstance(node.value, int) and not isinstance(node.value, bool):
            return self._within(node.value, node, faults)
        faults.add(node, f"must be {self._noun()}, got {seen(node)}")
        return FAULTY

    def _noun(self) -> str:
        return f"a whole number{self._range(' ')}"

    def _value(self, value: float) -> float:
        return int(value)

    def json(self) -> dict[str, Any]:
        return {**super().json(), "type": "integer"}

    def words(self) -> tuple[str, str]:
        return "whole number", self._range()


@dataclass(frozen=True)
class Day(Kind):
    """A calendar date."""

    def read(self, node: Node, faults: Faults) -> Any:
        if isinstance(node, ScalarNode) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", node.text):
            try:
                return date.fromisoformat(node.text)
            except ValueError as error:
                faults.add(node, f"'{node.text}' is not a date: {error}")
                return FAULTY
        faults.add(node, f"must be a date such as 2015-01-31, got {seen(node)}")
        return FAULTY

    def json(self) -> dict[str, Any]:
        return {"type": "string", "format": "date"}

    def words(self) -> tuple[str, str]:
        return "date", "`YYYY-MM-DD`"


@dataclass(frozen=True)
class TimeframeCode(Kind):
    """The length of a bar."""

    def read(self, node: Node, faults: Faults) -> Any:
        try:
            return Timeframe.parse(node.text if isinstance(node, ScalarNode) else seen(node))
        except InvalidInput as error:
            faults.add(node, error.message)
            return FAULTY

    def json(self) -> dict[str, Any]:
        return {"enum": [timeframe.value for timeframe in Timeframe]}

    def words(self) -> tuple[str, str]:
        return "timeframe", ", ".join(f"`{timeframe}`" for timeframe in Timeframe)


@dataclass(frozen=True)
class Optional(Kind):
    """Another kind, or nothing (``null``)."""

    inner: Kind

    def read(self, node: Node, faults: Faults) -> Any:
        if isinstance(node, ScalarNode) and node.value is None:
            return None
        return self.inner.read(node, faults)

    def json(self) -> dict[str, Any]:
        return {"anyOf": [self.inner.json(), {"type": "null"}]}

    def words(self) -> tuple[str, str]:
        return self.inner.words()


def seen(node: Node) -> str:
    """What a message says was found there."""
    if not isinstance(node, ScalarNode):
        return node.kind
    return "nothing" if node.value is None and not node.text else f"'{node.text[:80]}'"
