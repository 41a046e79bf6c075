"""The names that join the sections of a document: every one is followed, those that lead nowhere are faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ktrdr.errors import nearest
from ktrdr.indicators import IndicatorSpec
from ktrdr.strategies.document import FuzzyInput, RawInput
from ktrdr.strategies.kinds import FAULTY
from ktrdr.strategies.yaml_tree import Entry, Faults, ListNode, MapNode, Node, ScalarNode
from ktrdr.timeframe import Timeframe

__all__ = ["References"]


class References:
    """Follows names through one document.

    A name counts as known where it stands in the document, even if its own entry is faulty, and a section that is
    absent altogether has been reported as such: one mistake gives one fault.

    Parameters
    ----------
    root
        The document as nodes, for places.
    values
        The sections as read; those with faults are ``FAULTY`` or absent.
    """

    def __init__(
        self, root: MapNode, values: Mapping[str, Any], catalog: Mapping[str, IndicatorSpec], faults: Faults
    ) -> None:
        self._root, self._values, self._catalog, self._faults = root, values, catalog, faults
        data = values.get("training_data", FAULTY)
        self._timeframes: tuple[Timeframe, ...] = () if data is FAULTY else data.timeframes

    def check(self) -> tuple[FuzzyInput | RawInput, ...]:
        """Record the faults; return the inputs with ``timeframes: all`` resolved."""
        for entry in (self._entries("fuzzy_sets") or {}).values():
            if isinstance(entry.node, MapNode) and "indicator" in entry.node.entries:
                self._output(entry.node.entries["indicator"].node)
        for item in self._inputs():
            if "raw_indicator" in item.entries:
                self._output(item.entries["raw_indicator"].node)
            elif "fuzzy_set" in item.entries:
                self._name(item.entries["fuzzy_set"].node, "fuzzy set", "fuzzy_sets")
            if "timeframes" in item.entries:
                self._listed(item.entries["timeframes"].node)
        return self._resolved()

    def _entries(self, section: str) -> Mapping[str, Entry] | None:
        entry = self._root.entries.get(section)
        return entry.node.entries if entry is not None and isinstance(entry.node, MapNode) else None

    def _inputs(self) -> Iterator[MapNode]:
        entry = self._root.entries.get("nn_inputs")
        if entry is not None and isinstance(entry.node, ListNode):
            yield from (item for item in entry.node.items if isinstance(item, MapNode))

    def _output(self, node: Node) -> None:
        if not isinstance(node, ScalarNode):
            return
        name, _, output = node.text.partition(".")
        if not self._name(node, "indicator", "indicators", name) or not output:
            return
        uses = self._values.get("indicators", FAULTY)
        use = FAULTY if uses is FAULTY else uses.get(name, FAULTY)
        if use is FAULTY:
            return
        outputs = self._catalog[use.type].outputs
        if output not in outputs:
            hint = nearest(output, outputs) or "."
            self._faults.add(
                node, f"indicator '{name}' has no output '{output}'{hint} Outputs: {', '.join(outputs)}."
            )

    def _name(self, node: Node, noun: str, section: str, name: str | None = None) -> bool:
        entries = self._entries(section)
        if entries is None or not isinstance(node, ScalarNode):
            return False
        name = node.text if name is None else name
        if name in entries:
            return True
        listed = f" {section} has: {', '.join(entries)}." if entries else f" {section} is empty."
        self._faults.add(
            node, f"no {noun} '{name[:80]}' in this document{nearest(name, entries) or '.'}{listed}"
        )
        return False

    def _listed(self, node: Node) -> None:
        for item in node.items if isinstance(node, ListNode) else [node]:
            if not isinstance(item, ScalarNode) or item.text not in tuple(Timeframe):
                continue  # `all`, or reported where it was read
            if self._timeframes and item.text not in self._timeframes:
                listed = ", ".join(self._timeframes)
                self._faults.add(
                    item, f"timeframe '{item.text}' is not in training_data.timeframes ({listed})"
                )

    def _resolved(self) -> tuple[FuzzyInput | RawInput, ...]:
        inputs = self._values.get("nn_inputs", FAULTY)
        if inputs is FAULTY:
            return ()
        resolved = tuple(replace(item, timeframes=item.timeframes or self._timeframes) for item in inputs)
        seen: dict[tuple[object, ...], int] = {}
        for index, (item, node) in enumerate(zip(resolved, self._inputs(), strict=True)):
            for timeframe in item.timeframes:
                first = seen.setdefault((_source(item), timeframe), index)
                if first != index:
                    self._faults.add(node, f"the same on {timeframe} is already input {first}")
        return resolved


def _source(item: FuzzyInput | RawInput) -> tuple[object, ...]:
    return ("fuzzy", item.fuzzy_set) if isinstance(item, FuzzyInput) else ("raw", item.indicator, item.output)
