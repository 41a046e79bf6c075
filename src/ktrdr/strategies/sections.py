"""Lists, mappings and sections: the kinds that hold other kinds.

Unknown keys, missing keys and faults inside are all recorded; a section with a fault gives ``FAULTY`` instead of an
object, and the reading goes on.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ktrdr.errors import nearest
from ktrdr.strategies.kinds import FAULTY, Choice, Kind, Text, seen
from ktrdr.strategies.yaml_tree import Faults, ListNode, MapNode, Node, ScalarNode

__all__ = ["NO_DEFAULT", "Key", "ListOf", "MapOf", "Section", "Variant", "read_map"]

NO_DEFAULT: Final = object()


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of one kind, without repetitions if ``unique``; a value alone counts as a list if ``single``."""

    inner: Kind
    least: int = 1
    most: int = 10_000
    unique: bool = False
    single: bool = False

    def read(self, node: Node, faults: Faults) -> Any:
        if self.single and isinstance(node, ScalarNode):
            value = self.inner.read(node, faults)
            return value if value is FAULTY else (value,)
        if not isinstance(node, ListNode):
            faults.add(node, f"must be a list, got {seen(node)}")
            return FAULTY
        if not self.least <= len(node.items) <= self.most:
            faults.add(node, f"must have {self._size()}, got {len(node.items)}")
            return FAULTY
        before = len(faults)
        values = [self.inner.read(item, faults) for item in node.items]
        if self.unique:
            for index, value in enumerate(values):
                if value is not FAULTY and value in values[:index]:
                    faults.add(node.items[index], f"'{value}' is listed twice")
        return FAULTY if len(faults) > before else tuple(values)

    def _size(self) -> str:
        return f"{self.least} to {self.most} entries" if self.least else f"at most {self.most} entries"

    def json(self) -> dict[str, Any]:
        array = {
            "type": "array",
            "items": self.inner.json(),
            "minItems": self.least,
            "maxItems": self.most,
            **({"uniqueItems": True} if self.unique else {}),
        }
        return {"anyOf": [array, self.inner.json()]} if self.single else array

    def words(self) -> tuple[str, str]:
        kind, limits = self.inner.words()
        return f"list of {kind}s" if not kind.startswith("list") else f"list of {kind}", limits


@dataclass(frozen=True)
class MapOf(Kind):
    """A mapping from names of the author's choice to one kind; ``read_entry`` gets the name too."""

    name: Text
    inner: Kind
    least: int = 0
    most: int = 1_000

    def read(self, node: Node, faults: Faults) -> Any:
        if not isinstance(node, MapNode):
            faults.add(node, f"must be a mapping of names, got {seen(node)}")
            return FAULTY
        if not self.least <= len(node.entries) <= self.most:
            faults.add(node, f"must have {self.least} to {self.most:,} entries, got {len(node.entries):,}")
            return FAULTY
        values = {}
        for name, entry in node.entries.items():
            if self.name.pattern is not None and not re.fullmatch(self.name.pattern, name):
                faults.add(entry, f"'{name[:80]}' is not a possible name: {self.name.rule}")
            values[name] = self.inner.read(entry.node, faults)
        return values

    def json(self) -> dict[str, Any]:
        limits = {"minProperties": self.least, "maxProperties": self.most}
        names = {"propertyNames": self.name.json()}
        return {"type": "object", **names, "additionalProperties": self.inner.json(), **limits}

    def words(self) -> tuple[str, str]:
        return "mapping", "names of your choice"


@dataclass(frozen=True)
class Key:
    """One key of a section. ``doc`` says what changes with it; without ``default`` the dataclass gives it."""

    name: str
    kind: Kind
    doc: str
    required: bool | None = None
    default: object = NO_DEFAULT


@dataclass(frozen=True)
class Section(Kind):
    """A mapping with known keys that becomes one frozen object.

    Parameters
    ----------
    build
        The dataclass (or function) that gets the given keys by name; keys left out take its defaults.
    keys
        The keys, in the order of the documentation.
    check
        Called with the object; returns (key, message) for each fault between keys.
    fixed
        Arguments that do not come from the document.
    """

    build: Callable[..., Any]
    keys: tuple[Key, ...]
    check: Callable[[Any], Sequence[tuple[str, str]]] | None = None
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def read(self, node: Node, faults: Faults) -> Any:
        before = len(faults)
        values = read_map(node, self.keys, self.required(), faults)
        if values is None or len(faults) > before:
            return FAULTY
        made = self.build(**values, **self.fixed)
        if self.check is not None and isinstance(node, MapNode):
            for key, message in self.check(made):
                faults.add(node.entries[key].node if key in node.entries else node, message)
        return FAULTY if len(faults) > before else made

    def required(self) -> frozenset[str]:
        """Names of the keys that have no default."""
        return frozenset(key.name for key in self.keys if self.default_of(key) is NO_DEFAULT)

    def default_of(self, key: Key) -> object:
        """The value used where the document leaves the key out, or ``NO_DEFAULT``."""
        if key.required or key.default is not NO_DEFAULT:
            return NO_DEFAULT if key.required else key.default
        if not dataclasses.is_dataclass(self.build):
            return NO_DEFAULT
        field = {f.name: f for f in dataclasses.fields(self.build)}[key.name]
        return NO_DEFAULT if field.default is dataclasses.MISSING else field.default

    def json(self) -> dict[str, Any]:
        properties = {}
        for key in self.keys:
            properties[key.name] = {**key.kind.json(), "description": key.doc}
            default = self.default_of(key)
            if isinstance(default, str | int | float):
                properties[key.name]["default"] = default
        required = sorted(self.required())
        return {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }

    def words(self) -> tuple[str, str]:
        return "mapping", ""


@dataclass(frozen=True)
class Variant(Kind):
    """A mapping whose other keys depend on the word under ``tag``; ``default`` is used where it is left out."""

    tag: str
    doc: str
    sections: Mapping[str, Section]
    default: str | None = None

    def read(self, node: Node, faults: Faults) -> Any:
        if not isinstance(node, MapNode):
            faults.add(node, f"must be a mapping of keys, got {seen(node)}")
            return FAULTY
        chosen = self.default
        if self.tag in node.entries:
            chosen = self.choice().read(node.entries[self.tag].node, faults)
            if chosen is FAULTY:
                return FAULTY
        if chosen is None:
            faults.missing(node, self.tag, f": one of {', '.join(self.sections)}")
            return FAULTY
        rest = {name: entry for name, entry in node.entries.items() if name != self.tag}
        return self.sections[chosen].read(MapNode(node.pointer, node.line, node.column, rest), faults)

    def choice(self) -> Choice:
        """The words that ``tag`` accepts."""
        return Choice(tuple(self.sections))

    def json(self) -> dict[str, Any]:
        variants = []
        for word, section in self.sections.items():
            schema = section.json()
            schema["properties"] = {
                self.tag: {"const": word, "description": self.doc},
                **schema["properties"],
            }
            if word != self.default:
                schema["required"] = sorted({self.tag, *schema.get("required", ())})
            variants.append(schema)
        return {"oneOf": variants}

    def words(self) -> tuple[str, str]:
        return "mapping", ""


def read_map(
    node: Node, keys: Sequence[Key], required: frozenset[str], faults: Faults
) -> dict[str, Any] | None:
    """Read the known keys of a mapping, recording unknown and missing ones; None if it is no mapping."""
    if not isinstance(node, MapNode):
        faults.add(node, f"must be a mapping of keys, got {seen(node)}")
        return None
    kinds = {key.name: key.kind for key in keys}
    for name, entry in node.entries.items():
        if name not in kinds:
            accepted = f"accepted here: {', '.join(kinds)}" if kinds else "no further keys are accepted here"
            faults.add(entry, f"unknown key '{name[:80]}'{nearest(name, kinds) or ';'} {accepted}")
    for name in kinds:
        if name in required and name not in node.entries:
            faults.missing(node, name)
    return {
        name: kinds[name].read(entry.node, faults) for name, entry in node.entries.items() if name in kinds
    }
