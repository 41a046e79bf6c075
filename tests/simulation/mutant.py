"""A planted bug: what it is called, and which text of the sources it replaces by which."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutant", "Patch", "mutated", "plant"]

_SOURCES = Path(__file__).parents[2] / "src" / "ktrdr"


@dataclass(frozen=True, slots=True)
class Patch:
    """In ``file`` below src/ktrdr, ``old`` (found exactly once) becomes ``new``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug."""

    name: str
    patches: tuple[Patch, ...]


def plant(mutant: Mutant, folder: Path) -> Path:
    """A copy of the sources below ``folder`` with the bug in it; the path that goes into PYTHONPATH.

    Raises
    ------
    ValueError
        As :func:`mutated`.
    """
    texts = mutated(mutant)
    shutil.copytree(
        _SOURCES, folder / "ktrdr", ignore=shutil.ignore_patterns("sample_data", "training", "cli")
    )
    for file, text in texts.items():
        (folder / "ktrdr" / file).write_text(text)
    return folder


def mutated(mutant: Mutant) -> dict[str, str]:
    """The files that the bug changes, as they are with it.

    Raises
    ------
    ValueError
        If a text to be replaced is not there exactly once: the mutant is out of date.
    """
    texts: dict[str, str] = {}
    for patch in mutant.patches:
        text = texts.get(patch.file) or (_SOURCES / patch.file).read_text()
        if text.count(patch.old) != 1:
            raise ValueError(
                f"Mutant '{mutant.name}' is out of date: the text that it changes is {text.count(patch.old)} times "
                f"in src/ktrdr/{patch.file}. Bring it in line with the sources: {patch.old.strip()[:100]!r}"
            )
        texts[patch.file] = text.replace(patch.old, patch.new)
    return texts
