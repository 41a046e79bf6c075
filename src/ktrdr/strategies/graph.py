"""The graph sections: indicators -> fuzzy sets -> network inputs. Each kind reads its own part alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ktrdr.errors import FieldError, InvalidInput, nearest
from ktrdr.fuzzy import SHAPES, LinguisticVariable, parse_membership
from ktrdr.indicators import IndicatorSpec
from ktrdr.strategies.document import FuzzyInput, FuzzySetUse, IndicatorUse, RawInput
from ktrdr.strategies.kinds import FAULTY, Choice, Kind, Text, TimeframeCode
from ktrdr.strategies.sections import Key, ListOf, Section, read_map
from ktrdr.strategies.yaml_tree import Entry, Faults, MapNode, Node, ScalarNode
from ktrdr.timeframe import Timeframe

__all__ = ["NAME", "FuzzySetKind", "IndicatorKind", "InputKind"]

NAME = Text(
    r"[A-Za-z_][A-Za-z0-9_]{0,63}", "letters, digits and underscores, not beginning with a digit, at most 64"
)
REFERENCE = Text(
    r"[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z_][A-Za-z0-9_]{0,63})?",
    "a name of `indicators`, or name.output for one of several outputs",
)
_POINT = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf"]}]}


@dataclass(frozen=True)
class IndicatorKind(Kind):
    """``{type: rsi, period: 14}``: a type of the catalog and its parameters."""

    catalog: Mapping[str, IndicatorSpec]

    def read(self, node: Node, faults: Faults) -> Any:
        if not isinstance(node, MapNode):
            faults.add(node, f"must be a mapping such as {{type: rsi, period: 14}}, got {node.kind}")
            return FAULTY
        if "type" not in node.entries:
            faults.missing(node, "type")
            return FAULTY
        type_node = node.entries["type"].node
        name = type_node.text if isinstance(type_node, ScalarNode) else type_node.kind
        if name not in self.catalog:
            known = ", ".join(sorted(self.catalog))
            hint = nearest(name, self.catalog) or "."
            faults.add(type_node, f"no indicator '{name[:80]}'{hint} Known indicators: {known}.")
            return FAULTY
        if self.catalog[name].repaints:
            faults.add(
                type_node,
                f"indicator '{name}' repaints: its past values change as bars arrive, so it cannot be an input",
            )
            return FAULTY
        return self._checked(name, node, faults)

    def _checked(self, name: str, node: MapNode, faults: Faults) -> Any:
        given = {key: entry.node.plain() for key, entry in node.entries.items() if key != "type"}
        try:
            params = self.catalog[name].check(given)
        except InvalidInput as error:
            _add_inside(node, error, faults)
            return FAULTY
        return IndicatorUse(node.pointer.rpartition("/")[2], name, params)

    def json(self) -> dict[str, Any]:
        return {"oneOf": [_indicator_json(spec) for spec in self.catalog.values() if not spec.repaints]}

    def words(self) -> tuple[str, str]:
        return "mapping", "`type`: a name of the indicator catalog; the other keys are its parameters"


@dataclass(frozen=True)
class FuzzySetKind(Kind):
    """``{indicator: rsi_14, low: [...], high: [...]}``: labels and membership functions over one output."""

    def read(self, node: Node, faults: Faults) -> Any:
        if not isinstance(node, MapNode):
            faults.add(node, f"must be a mapping of `indicator` and labels, got {node.kind}")
            return FAULTY
        before = len(faults)
        reference: Any = FAULTY
        if "indicator" in node.entries:
            reference = REFERENCE.read(node.entries["indicator"].node, faults)
        else:
            faults.missing(node, "indicator")
        labels = {label: entry for label, entry in node.entries.items() if label != "indicator"}
        if not labels:
            faults.add(node, "names no membership function, such as `low: [0, 20, 40]`")
        sets = tuple((label, _membership(label, entry, faults)) for label, entry in labels.items())
        if reference is FAULTY or len(faults) > before:
            return FAULTY
        name = node.pointer.rpartition("/")[2]
        indicator, _, output = reference.partition(".")
        return FuzzySetUse(name, indicator, output or None, LinguisticVariable(name, sets))

    def json(self) -> dict[str, Any]:
        points = {"type": "array", "items": _POINT, "minItems": 3, "maxItems": 4}
        shapes = [_shape_json(shape, names) for shape, names in SHAPES.items()]
        return {
            "type": "object",
            "properties": {"indicator": {**REFERENCE.json(), "description": REFERENCE.rule}},
            "propertyNames": NAME.json(),
            "additionalProperties": {"anyOf": [points, *shapes]},
            "required": ["indicator"],
            "minProperties": 2,
        }

    def words(self) -> tuple[str, str]:
        return "mapping", "`indicator` and at least one label"


@dataclass(frozen=True)
class _InputTimeframes(Kind):
    """``all``, one timeframe or a list; an empty tuple stands for all until references are resolved."""

    def read(self, node: Node, faults: Faults) -> Any:
        if isinstance(node, ScalarNode) and node.text == "all":
            return ()
        return ListOf(TimeframeCode(), unique=True, single=True).read(node, faults)

    def json(self) -> dict[str, Any]:
        return {"anyOf": [{"const": "all"}, ListOf(TimeframeCode(), unique=True, single=True).json()]}

    def words(self) -> tuple[str, str]:
        return "`all`, timeframe or list", "timeframes of `training_data`"


def _raw(
    raw_indicator: str, timeframes: tuple[Timeframe, ...] = (), normalization: Any = "zscore"
) -> RawInput:
    indicator, _, output = raw_indicator.partition(".")
    return RawInput(indicator, output or None, timeframes, normalization)


def _fuzzy(fuzzy_set: str, timeframes: tuple[Timeframe, ...] = ()) -> FuzzyInput:
    return FuzzyInput(fuzzy_set, timeframes)


@dataclass(frozen=True)
class InputKind(Kind):
    """One entry of ``nn_inputs``: a fuzzy set or a raw indicator."""

    fuzzy = Section(
        _fuzzy,
        (
            Key(
                "fuzzy_set",
                NAME,
                "A name of `fuzzy_sets`: each of its memberships becomes a network input.",
                True,
            ),
            Key("timeframes", _InputTimeframes(), "The timeframes it is computed on.", default="all"),
        ),
    )
    raw = Section(
        _raw,
        (
            Key("raw_indicator", REFERENCE, "An indicator whose value itself becomes a network input.", True),
            Key("timeframes", _InputTimeframes(), "The timeframes it is computed on.", default="all"),
            Key(
                "normalization",
                Choice(("zscore", "minmax", "none")),
                "How its values are scaled, fitted on the training part only and stored with the model: "
                "`zscore` (x - mean) / deviation, `minmax` to 0..1.",
                default="zscore",
            ),
        ),
    )

    def read(self, node: Node, faults: Faults) -> Any:
        if isinstance(node, MapNode) and "raw_indicator" in node.entries:
            return self.raw.read(node, faults)
        if isinstance(node, MapNode) and "fuzzy_set" not in node.entries:
            read_map(node, self.raw.keys + self.fuzzy.keys, frozenset(), faults)
            faults.missing(node, "fuzzy_set", " (or 'raw_indicator')")
            return FAULTY
        return self.fuzzy.read(node, faults)

    def json(self) -> dict[str, Any]:
        return {"oneOf": [self.fuzzy.json(), self.raw.json()]}

    def words(self) -> tuple[str, str]:
        return "mapping", "`fuzzy_set` or `raw_indicator`"


def _membership(label: str, entry: Entry, faults: Faults) -> Any:
    NAME.read(ScalarNode(entry.pointer, entry.line, entry.column, label, label), faults)
    if isinstance(entry.node, ScalarNode):
        faults.add(entry.node, "must be 3 numbers (triangular), 4 (trapezoidal) or {type: ...}")
        return FAULTY
    try:
        return parse_membership(entry.node.plain())
    except InvalidInput as error:
        _add_inside(entry.node, error, faults)
        return FAULTY


def _add_inside(node: Node, error: InvalidInput, faults: Faults) -> None:
    """Record the faults of a part of the document, each at the key its relative pointer names."""
    for fault in error.errors or (FieldError("", error.message),):
        key = fault.pointer.removeprefix("/")
        entry = node.entries.get(key) if isinstance(node, MapNode) else None
        faults.add(entry or node, fault.message if entry or not key else f"{key}: {fault.message}")


def _shape_json(shape: str, names: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "type": {"const": shape},
            **dict.fromkeys(names, _POINT),
            "points": {"type": "array", "items": _POINT, "minItems": len(names), "maxItems": len(names)},
        },
        "additionalProperties": False,
        "required": ["type"],
    }


def _indicator_json(spec: IndicatorSpec) -> dict[str, Any]:
    properties: dict[str, Any] = {"type": {"const": spec.name, "description": spec.title}}
    for parameter in spec.parameters:
        schema: dict[str, Any] = {"description": parameter.doc, "default": parameter.default}
        if parameter.kind == "choice":
            schema["enum"] = list(parameter.choices)
        else:
            schema["type"] = "integer" if parameter.kind == "int" else "number"
            limits = {"minimum": parameter.minimum, "maximum": parameter.maximum}
            schema |= {name: limit for name, limit in limits.items() if abs(limit) != float("inf")}
        properties[parameter.name] = schema
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": ["type"],
    }
