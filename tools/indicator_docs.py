"""Write ``docs/reference/indicators.md`` from the catalog, so that the page and the code never differ."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ktrdr.indicators import IndicatorSpec, catalog

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "indicators.md"
HEAD = """# Indicators

Generated from the catalog by `make docs`; a test compares. In Python: `ktrdr.indicators.compute("rsi", bars, period=14)`.

- The value at a bar uses bars up to and including it. Rows before the *lookback* are NaN, never zero; all outputs of
  an indicator start together.
- *Recursive* indicators remember their seed. After *lookback + margin* rows an earlier start moves the value by less
  than a thousandth of its range; models use no row before that. *Cumulative* ones count from the first bar for ever:
  only their changes mean something.
- Missing values (NaN, infinity) are refused with column and row; bars have none.
- Every value is tested at every bar against TA-Lib and against a plain definition. Where nothing moves and a formula
  says 0/0, the value is the neutral one in the table, so that a standstill never looks oversold or overbought.

| indicator | title | outputs | lookback | margin | range | where nothing moves |
|---|---|---|---|---|---|---|
"""


def _range(spec: IndicatorSpec) -> str:
    return "" if spec.bounds is None else f"{spec.bounds[0]:g} to {spec.bounds[1]:g}"


def _row(spec: IndicatorSpec) -> str:
    outputs = ", ".join(f"`{output}`" for output in spec.outputs)
    margin = {"window": "0", "recursive": str(spec.unstable({})), "cumulative": "never settles"}[spec.origin]
    cells = [f"[`{spec.name}`](#{spec.name})", spec.title, outputs, str(spec.lookback({})), margin]
    return f"| {' | '.join([*cells, _range(spec), spec.flat])} |"


def _section(spec: IndicatorSpec) -> Iterator[str]:
    yield f"## {spec.name}\n"
    yield f"{spec.title}: `{spec.formula}`.\n"
    yield f"Source: {spec.reference}." + (" Needs volume.\n" if spec.needs_volume else "\n")
    if spec.parameters:
        yield "| parameter | default | accepted | meaning |\n|---|---|---|---|"
        for p in spec.parameters:
            yield f"| `{p.name}` | `{p.default}` | {p.accepted} | {p.doc} |"
        yield ""


def render() -> str:
    """The page's text."""
    specs = sorted(catalog().values(), key=lambda spec: spec.name)
    table = HEAD + "\n".join(_row(spec) for spec in specs) + "\n"
    note = "\nLookback and margin are in bars, for the default parameters.\n"
    return table + note + "\n" + "\n".join(line for spec in specs for line in _section(spec)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
    sys.stdout.write(f"wrote {PAGE.name}\n")
