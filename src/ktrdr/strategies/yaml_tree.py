"""YAML text to a tree of nodes that know their place: YAML 1.2, safe, under caps, duplicates refused.

Only plain data is read. Anchors, aliases, tags and further documents are refused, so a small text cannot unfold
into a large one, and no text can construct an object. Scalars follow the YAML 1.2 core schema: ``no`` and ``on``
are text, ``1e-4`` is a number, dates stay text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from ktrdr.errors import FieldError, InvalidStrategy

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "Entry",
    "Faults",
    "ListNode",
    "MapNode",
    "Node",
    "ScalarNode",
    "read_yaml",
    "resolve",
]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000

Scalar = str | int | float | bool | None

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_HALF = re.compile("[\ud800-\udfff]")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A single value; ``text`` is what was written."""

    pointer: str
    line: int
    column: int
    value: Scalar
    text: str

    kind = "a value"

    def plain(self) -> object:
        """The value itself."""
        return self.value


@dataclass(frozen=True, slots=True)
class ListNode:
    """A sequence."""

    pointer: str
    line: int
    column: int
    items: list[Node] = field(default_factory=list)

    kind = "a list"

    def plain(self) -> object:
        """The values as nested lists and dictionaries."""
        return [item.plain() for item in self.items]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping, where it stands, and its value."""

    pointer: str
    line: int
    column: int
    node: Node


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping; keys are text and in the order of the document."""

    pointer: str
    line: int
    column: int
    entries: dict[str, Entry] = field(default_factory=dict)

    kind = "a mapping"

    def plain(self) -> object:
        """The values as nested lists and dictionaries."""
        return {key: entry.node.plain() for key, entry in self.entries.items()}


Node = ScalarNode | ListNode | MapNode


class Faults:
    """Collects every fault of one document, in the order of its lines."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def add(self, where: Node | Entry, message: str) -> None:
        """Record a fault at a node or at a key."""
        self._errors.append(FieldError(where.pointer, message, where.line, where.column))

    def missing(self, where: Node, key: str, hint: str = "") -> None:
        """Record that a mapping lacks a key; the pointer is the key's, the place its mapping's."""
        message = f"missing required field '{key}'{hint}"
        self._errors.append(FieldError(f"{where.pointer}/{key}", message, where.line, where.column))

    def __len__(self) -> int:
        return len(self._errors)

    def sorted(self) -> list[FieldError]:
        """The faults, top of the document first; faults of one place keep the order in which they were found."""
        return sorted(self._errors, key=lambda error: (error.line or 0, error.column or 0))


def read_yaml(text: str, faults: Faults) -> Node:
    """Read one YAML document.

    Duplicate and non-text keys are added to ``faults``; the first value of a duplicate key is kept.

    Raises
    ------
    InvalidStrategy
        If the text is not YAML, is empty, exceeds a cap, or uses anchors, aliases, tags or several documents.
    """
    size = len(text.encode("utf-8", errors="surrogatepass"))
    if size > MAX_BYTES:
        raise InvalidStrategy(f"The document has {size:,} bytes; at most {MAX_BYTES:,} are read.")
    builder = _Builder(faults)
    try:
        for event in _events(text):
            builder.feed(event)
    except YAMLError as error:
        raise _not_yaml(error) from None
    if builder.root is None:
        raise InvalidStrategy("The document is empty. Start from: ktrdr strategies new NAME")
    return builder.root


def _events(text: str) -> Iterator[Event]:
    yaml = YAML(typ="safe", pure=True)
    try:
        yield from yaml.parse(text)
    except (OverflowError, ValueError):  # what the reader does with \UFFFFFFFF, by the version of Python
        fault = FieldError("", "an escape such as \\UFFFFFFFF names a character that does not exist")
        raise InvalidStrategy("The document is not YAML", [fault]) from None


def _not_yaml(error: YAMLError) -> InvalidStrategy:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    where = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
    return InvalidStrategy("The document is not YAML", [FieldError("", f"{problem}", *where)])


class _Builder:
    """Folds parse events into nodes, keeping its own stack: no recursion, whatever the text."""

    def __init__(self, faults: Faults) -> None:
        self.root: Node | None = None
        self._faults = faults
        self._open: list[ListNode | MapNode] = []
        self._key: list[Entry | None] = []  # per open mapping: the key that waits for its value
        self._nodes = 0
        self._documents = 0

    def feed(self, event: Event) -> None:
        if isinstance(event, NodeEvent):
            self._refuse_references(event)
            self._nodes += 1
            if self._nodes > MAX_NODES:
                raise _refused(event, f"more than {MAX_NODES:,} values")
        if isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _refused(event, "a second document; one file holds one strategy")
        elif isinstance(event, ScalarEvent):
            self._scalar(event)
        elif isinstance(event, SequenceStartEvent | MappingStartEvent):
            self._begin(event)
        elif isinstance(event, SequenceEndEvent | MappingEndEvent):
            self._open.pop()
            self._key.pop()

    def _refuse_references(self, event: NodeEvent) -> None:
        if isinstance(event, AliasEvent):
            raise _refused(event, f"the alias '*{event.anchor}'; write the value out")
        if event.anchor is not None:
            raise _refused(event, f"the anchor '&{event.anchor}'; write the value out where it is needed")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _refused(event, f"the tag '{tag}'; write plain values")

    def _scalar(self, event: ScalarEvent) -> None:
        line, column = _place(event)
        if _HALF.search(event.value):
            raise _refused(event, "half a character (a lone surrogate, \\uD800 to \\uDFFF)")
        if self._waits_for_key():
            self._take_key(str(event.value), line, column)
            return
        plain = bool(event.implicit[0])
        value = resolve(event.value) if plain else str(event.value)
        self._put(ScalarNode(self._pointer(), line, column, value, str(event.value)))

    def _begin(self, event: SequenceStartEvent | MappingStartEvent) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise _refused(event, f"nesting deeper than {MAX_DEPTH}")
        if self._waits_for_key():
            raise _refused(event, "a key that is a list or a mapping; keys are text")
        line, column = _place(event)
        container = ListNode if isinstance(event, SequenceStartEvent) else MapNode
        node: ListNode | MapNode = container(self._pointer(), line, column)
        self._put(node)
        self._open.append(node)
        self._key.append(None)

    def _waits_for_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], MapNode) and self._key[-1] is None

    def _take_key(self, key: str, line: int, column: int) -> None:
        parent = self._open[-1]
        pointer = f"{parent.pointer}/{_escaped(key)}"
        # The node is replaced when the value arrives; the key's own place is what matters until then.
        waiting = ScalarNode(pointer, line, column, None, key)
        self._key[-1] = Entry(pointer, line, column, waiting)

    def _pointer(self) -> str:
        if not self._open:
            return ""
        parent, key = self._open[-1], self._key[-1]
        if isinstance(parent, ListNode):
            return f"{parent.pointer}/{len(parent.items)}"
        assert key is not None
        return key.pointer

    def _put(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, ListNode):
            parent.items.append(node)
            return
        key, self._key[-1] = self._key[-1], None
        assert key is not None
        assert isinstance(key.node, ScalarNode)
        name = key.node.text
        if name in parent.entries:
            first = parent.entries[name]
            self._faults.add(key, f"duplicate key '{name}', already given in line {first.line}")
            return
        parent.entries[name] = Entry(key.pointer, key.line, key.column, node)


def _refused(event: Event, what: str) -> InvalidStrategy:
    return InvalidStrategy(
        "The document uses what strategies may not", [FieldError("", what, *_place(event))]
    )


def _place(event: Event) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def resolve(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar in the YAML 1.2 core schema; hexadecimal and octal stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) <= 30 else float(text)
    return float(text) if _FLOAT.fullmatch(text) else text
