"""Write ``docs/reference/strategy-document.md`` from the schema, so that the page and the parser never differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ktrdr.fuzzy import SHAPES
from ktrdr.indicators import catalog
from ktrdr.strategies.graph import InputKind
from ktrdr.strategies.kinds import Kind, Optional
from ktrdr.strategies.schema import LongForm, strategy_section
from ktrdr.strategies.sections import NO_DEFAULT, Key, Section, Variant
from ktrdr.strategies.starter import starter
from ktrdr.strategies.yaml_tree import MAX_BYTES, MAX_DEPTH, MAX_NODES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "strategy-document.md"

HEAD = """# Strategy document

Generated from the schema by `make docs`; a test compares.

A strategy is one YAML 1.2 document: indicators become fuzzy sets, fuzzy sets become network inputs, the network says
BUY, HOLD or SELL, rules turn that into orders. It is read once and checked whole: unknown, misspelt and duplicate
keys, values out of range and names that lead nowhere are all reported together, each with its line, column, JSON
pointer and the nearest valid name. Every key below changes what happens; there are no others.

- `ktrdr strategies new NAME` writes the commented document at the end of this page.
- `ktrdr strategies validate FILE` checks one without running it.
- `ktrdr strategies schema` prints the JSON Schema, with which editors complete and check. It cannot say everything:
  names across sections and sums of shares are checked by the parser alone.

Limits: {size} KiB, nesting {depth}, {nodes} values. Anchors, aliases, tags and further documents are refused. `no`,
`on` and `yes` are text, `1e-4` is a number, and `version` is written in quotes or without.
"""

INDICATORS = """## indicators

A mapping from names of your choice to indicators of the catalog: `rsi_14: {{type: rsi, period: 14}}`. The keys beside
`type` are the indicator's parameters; those left out have their defaults. Indicators whose past values change as bars
arrive are refused.

| Type | Parameters | Outputs |
|---|---|---|
{rows}
"""

FUZZY_SETS = """## fuzzy_sets

A mapping from names of your choice to linguistic variables. `indicator` names an entry of `indicators`, with a dot and
an output where another than the first is meant: `macd_12.histogram`. All other keys are labels, each with a membership
function:

```yaml
momentum:
  indicator: rsi_14
  low: [-.inf, -.inf, 20, 35]                # 4 numbers: trapezoidal; an infinite end opens a shoulder
  middle: [30, 50, 70]                       # 3 numbers: triangular
  high: {{type: gaussian, mean: 85, sigma: 8}} # any shape by name
```

| Type | Numbers |
|---|---|
{rows}

The numbers are given by name or, in this order, as `points: [...]`. Gaps between sets are allowed and reported by
`ktrdr strategies validate`.
"""

NAMES = (
    "Names of indicators, fuzzy sets and labels: letters, digits and underscores, not beginning with a digit, "
    "at most 64 characters."
)


@dataclass(frozen=True)
class Row:
    """One line of a table; ``condition`` is the choice under which the key exists."""

    name: str
    condition: str
    kind: Kind
    default: str
    doc: str


def render() -> str:
    """The page's text."""
    root = strategy_section()
    parts = [
        HEAD.format(size=MAX_BYTES // 1024, depth=MAX_DEPTH, nodes=f"{MAX_NODES:,}"),
        "## Sections\n",
        _table(_section_rows(root)),
    ]
    for key in root.keys:
        parts += _about(key)
    parts += ["## A document to begin with\n", f"```yaml\n{starter('my_strategy')}```\n"]
    return "\n".join(parts)


def _about(key: Key) -> Iterator[str]:
    if key.name == "indicators":
        yield INDICATORS.format(rows="\n".join(_indicator_rows()))
        yield f"{NAMES}\n"
    elif key.name == "fuzzy_sets":
        shapes = (f"| `{shape}` | {', '.join(f'`{n}`' for n in names)} |" for shape, names in SHAPES.items())
        yield FUZZY_SETS.format(rows="\n".join(shapes))
    elif key.name == "nn_inputs":
        yield "## nn_inputs\n\nA list; each entry is one of two, and their order is the order of the features.\n"
        for title, section in (("A fuzzy set", InputKind.fuzzy), ("A raw value", InputKind.raw)):
            yield f"### {title}\n"
            yield _table(_section_rows(section))
    else:
        yield from _tables(key.kind, key.name, 2)


def _tables(kind: Kind, path: str, level: int) -> Iterator[str]:
    kind = kind.inner if isinstance(kind, Optional) else kind
    rows = list(_rows(kind))
    if not rows:
        return
    yield f"{'#' * level} {path}\n"
    if isinstance(kind, LongForm):
        yield f"A value, a list, or this longer form of the same (`{_example(kind)}`):\n"
    yield _table(rows)
    for row in rows:
        yield from _tables(row.kind, f"{path}.{row.name}", min(level + 1, 3))


def _example(kind: LongForm) -> str:
    values = ("1h", "1d") if kind.base else ("SP500", "NASDAQ")
    return f"{{mode: multi_{kind.noun}, list: [{', '.join(values)}]}}"


def _rows(kind: Kind) -> Iterator[Row]:
    if isinstance(kind, LongForm):
        kind = kind.variant()
    if isinstance(kind, Section):
        yield from _section_rows(kind)
    elif isinstance(kind, Variant):
        default = "required" if kind.default is None else f"`{kind.default}`"
        yield Row(kind.tag, "", kind.choice(), default, kind.doc)
        for word, section in kind.sections.items():
            yield from _section_rows(section, f"`{kind.tag}: {word}`")


def _section_rows(section: Section, condition: str = "") -> Iterator[Row]:
    for key in section.keys:
        yield Row(key.name, condition, key.kind, _default(section, key), key.doc)


def _default(section: Section, key: Key) -> str:
    value = section.default_of(key)
    if value is NO_DEFAULT:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value:g}`" if abs(value) < 1e6 else f"`{value}`"
    if isinstance(value, list):
        return f"`{value}`"
    if isinstance(value, str):
        return f"`{value}`" if value and " " not in value else value or "empty"
    return "the defaults of its keys"


def _table(rows: Iterator[Row] | list[Row]) -> str:
    rows = list(rows)
    conditional = any(row.condition for row in rows)
    head = ["Key", *(["Only with"] if conditional else []), "Type", "Range", "Default", "Meaning"]
    lines = [_line(head), "|" + "---|" * len(head)]
    for row in rows:
        kind, limits = row.kind.words()
        condition = [row.condition] if conditional else []
        lines.append(_line([f"`{row.name}`", *condition, kind, limits, row.default, row.doc]))
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _indicator_rows() -> Iterator[str]:
    for name, spec in sorted(catalog().items()):
        if spec.repaints:
            continue
        parameters = ", ".join(f"`{p.name}` ({p.accepted}; {p.default})" for p in spec.parameters) or "none"
        outputs = ", ".join(f"`{output}`" for output in spec.outputs)
        yield _line([f"`{name}`", parameters, outputs])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
