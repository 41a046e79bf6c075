"""Change values inside YAML text and keep its comments and order; the same input gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from ktrdr.strategies.yaml_tree import resolve

__all__ = ["Change", "rewrite"]


@dataclass(frozen=True, slots=True)
class Change:
    """A value to put at a path; with ``only_present`` nothing happens where the last key is absent."""

    path: tuple[str | int, ...]
    value: str | int | date | list[str]
    only_present: bool = False


class _Verbatim(VersionedResolver):
    """Reads every scalar as the text it is, so that what is not changed is written back as it was."""

    @property
    def versioned_resolver(self) -> Mapping[str, object]:
        return {}


def rewrite(text: str, changes: Sequence[Change]) -> str:
    """The document with the changes made.

    ``text`` must be a document that :func:`ktrdr.strategies.parse_strategy` accepted: it is not checked again.
    Indentation is made uniform; scalars, comments and order stay.
    """
    yaml = YAML(typ="rt", pure=True)
    yaml.Resolver = _Verbatim
    yaml.preserve_quotes = True
    yaml.width = 4096  # lines of the document are never folded
    yaml.indent(mapping=2, sequence=4, offset=2)
    root = yaml.load(text)
    for change in changes:
        parent = root
        for step in change.path[:-1]:
            parent = parent[step]
        if not change.only_present or change.path[-1] in parent:
            parent[change.path[-1]] = _value(change.value)
    out = io.StringIO()
    yaml.dump(root, out)
    return out.getvalue()


def _value(value: str | int | date | list[str]) -> object:
    if isinstance(value, list):
        items = CommentedSeq([_value(item) for item in value])
        items.fa.set_flow_style()
        return items
    if isinstance(value, str) and not isinstance(resolve(value), str):
        return DoubleQuotedScalarString(
            value
        )  # a symbol named TRUE or 600519 stays text for other readers too
    return str(value)
