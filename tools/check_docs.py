"""Fail on a broken link or a fault of form in any Markdown file of the project.

Checked: relative links and images point to files that exist, anchors to headings that exist; one first-level
heading, at the top; heading levels do not jump; code fences are closed and name a language; no trailing blanks,
tabs or missing final newline; tables have as many cells in each row as in the header.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\(([^()\s]+(?:\([^()\s]*\))?)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
INLINE_CODE = re.compile(r"`[^`]*`")
CELL_BAR = re.compile(r"(?<!\\)\|")


def slug(heading: str) -> str:
    """The anchor that forges give to a heading."""
    text = re.sub(
        r"[`*_]|\[([^\]]*)\]\([^)]*\)", lambda m: m.group(1) or ("_" if m.group(0) == "_" else ""), heading
    )
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


def prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and lines outside code fences."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(path: Path) -> set[str]:
    """All heading anchors of a file, with the -1, -2 suffixes of repeated ones."""
    found: dict[str, int] = {}
    result = set()
    for _, line in prose_lines(path.read_text()):
        if match := HEADING.match(line):
            name = slug(match.group(2))
            count = found.get(name, 0)
            found[name] = count + 1
            result.add(f"{name}-{count}" if count else name)
    return result


def link_faults(path: Path, text: str) -> Iterator[tuple[int, str]]:
    for number, line in prose_lines(text):
        for target in LINK.findall(INLINE_CODE.sub("", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            if not file.exists():
                yield number, f"link to '{target}': no such file"
            elif ROOT not in file.parents and file != ROOT:
                yield number, f"link to '{target}' leaves the project"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file):
                yield number, f"link to '{target}': no such heading"


def heading_faults(text: str) -> Iterator[tuple[int, str]]:
    level, first_levels = 0, 0
    for number, line in prose_lines(text):
        if not (match := HEADING.match(line)):
            continue
        depth = len(match.group(1))
        first_levels += depth == 1
        if depth > level + 1:
            yield number, f"heading jumps from level {level} to {depth}"
        if depth == 1 and first_levels > 1:
            yield number, "second first-level heading"
        level = depth
    if not first_levels:
        yield 1, "no first-level heading"


def fence_faults(text: str) -> Iterator[tuple[int, str]]:
    opened = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.rstrip() != line:
            yield number, "trailing blanks"
        if "\t" in line and not opened:
            yield number, "tab"
        if line.lstrip().startswith("```"):
            if not opened and line.strip() == "```":
                yield number, "code fence without a language"
            opened = 0 if opened else number
    if opened:
        yield opened, "code fence is never closed"
    if not text.endswith("\n"):
        yield text.count("\n") + 1, "no newline at the end"


def table_faults(text: str) -> Iterator[tuple[int, str]]:
    width = 0
    for number, line in prose_lines(text):
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(CELL_BAR.findall(INLINE_CODE.sub("", line)))
        if width and cells != width:
            yield number, f"table row has {cells - 1} cells, its header {width - 1}"
        width = width or cells


def faults(path: Path) -> Iterator[str]:
    text = path.read_text()
    found = [*link_faults(path, text), *heading_faults(text), *fence_faults(text), *table_faults(text)]
    for number, message in sorted(found):
        yield f"{path.relative_to(ROOT)}:{number}: {message}"


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    paths = [ROOT / name for name in listed if (ROOT / name).exists()]
    found = [fault for path in paths for fault in faults(path)]
    for fault in found:
        sys.stdout.write(fault + "\n")
    sys.stdout.write(f"{len(paths)} Markdown files, {len(found)} faults\n")
    return 1 if found or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
