"""An operation's story: timestamped lines that tell how it came to its status, capped in number and length."""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["STORY_LINES", "compacted", "one_line", "tell"]

STORY_LINES = 40
_KEPT_FIRST = 10
_LINE_LENGTH = 300
_STAMP = len("2026-01-01T12:00:00.000")
_LEFT_OUT = re.compile(r"\.\.\. (\d+) lines left out \.\.\.\Z")
_REPEATED = re.compile(r"(?P<text>.*) \(x(?P<count>\d+)\)\Z")


def one_line(text: str) -> str:
    """``text`` without line breaks, cut to the length of a story line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _LINE_LENGTH else flat[: _LINE_LENGTH - 3] + "..."


def tell(story: tuple[str, ...], now: datetime, text: str) -> tuple[str, ...]:
    """``story`` with one more line.

    A line that only repeats the last one becomes a count (``(x3)``) with the newest time, so that a stray worker
    that reports for hours costs one line. Beyond ``STORY_LINES`` the middle is left out: the first and the newest
    lines stay, and one line between them says how many are missing.
    """
    stamp = now.astimezone(UTC).isoformat(timespec="milliseconds")[:_STAMP] + "Z"
    text = one_line(text)
    if story:
        last, count = _split(story[-1].partition(" ")[2])
        if last == text:
            return (*story[:-1], f"{stamp} {text} (x{count + 1})")
    return _compact((*story, f"{stamp} {text}"))


def compacted(story: tuple[str, ...]) -> tuple[str, ...]:
    """The story as one line: how it ended, and how many lines told how it came to that."""
    if len(story) < 2:
        return story
    told = sum(int(match[1]) if (match := _LEFT_OUT.match(line)) else 1 for line in story[:-1])
    stamp, _, text = story[-1].partition(" ")
    end = f" ({told} {'line' if told == 1 else 'lines'} before it left out)"
    return (f"{stamp} {text[: _LINE_LENGTH - len(end)]}{end}",)


def _split(line: str) -> tuple[str, int]:
    match = _REPEATED.match(line)
    return (match["text"], int(match["count"])) if match else (line, 1)


def _compact(lines: tuple[str, ...]) -> tuple[str, ...]:
    if len(lines) <= STORY_LINES:
        return lines
    kept_last = STORY_LINES - _KEPT_FIRST - 1
    middle = lines[_KEPT_FIRST:-kept_last]
    missing = 0
    for line in middle:
        match = _LEFT_OUT.match(line)
        missing += int(match[1]) if match else 1
    return (*lines[:_KEPT_FIRST], f"... {missing} lines left out ...", *lines[-kept_last:])
