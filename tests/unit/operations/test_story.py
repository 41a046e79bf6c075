from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.operations.story import STORY_LINES, compacted, tell
from ktrdr.testing.operations import T0


def told(*texts: str) -> tuple[str, ...]:
    story: tuple[str, ...] = ()
    for number, text in enumerate(texts):
        story = tell(story, T0 + timedelta(seconds=number), text)
    return story


def test_a_line_has_its_time_in_utc() -> None:
    east = datetime(2026, 1, 1, 14, 0, 0, 123_456, tzinfo=timezone(timedelta(hours=2)))
    assert tell((), east, "submitted") == ("2026-01-01T12:00:00.123Z submitted",)


def test_a_repeated_line_becomes_a_count_with_the_newest_time() -> None:
    assert told("a", "b", "b", "b") == (
        "2026-01-01T12:00:00.000Z a",
        "2026-01-01T12:00:03.000Z b (x3)",
    )


def test_a_long_story_keeps_its_first_and_newest_lines() -> None:
    story = told(*(f"line {n}" for n in range(100)))
    assert len(story) == STORY_LINES == 40
    assert story[0].endswith("line 0")
    assert story[9].endswith("line 9")
    assert story[10] == "... 61 lines left out ..."
    assert story[11].endswith("line 71")
    assert story[-1].endswith("line 99")


def test_a_line_is_one_line_and_short() -> None:
    (line,) = tell((), T0, "boom\n  Traceback\r\n" + "x" * 1000)
    assert "\n" not in line
    assert "boom Traceback xxx" in line
    assert line.endswith("...")
    assert len(line) == len("2026-01-01T12:00:00.000Z ") + 300


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c (x9)", "... 3 lines left out ..."]), max_size=150))
def test_no_line_is_lost_without_being_counted(texts: list[str]) -> None:
    story = told(*texts)
    assert len(story) <= STORY_LINES
    if texts:
        assert story[0].split(" ", 1)[1].startswith(texts[0].split(" (x")[0])


def test_a_compacted_story_tells_its_end_and_how_much_is_left_out() -> None:
    assert compacted(()) == ()
    assert compacted(told("a")) == told("a")
    assert compacted(told("a", "b")) == ("2026-01-01T12:00:01.000Z b (1 line before it left out)",)
    long = told(*(str(number) for number in range(100)))
    assert compacted(long) == ("2026-01-01T12:01:39.000Z 99 (99 lines before it left out)",)
    [cut] = compacted(told("a", "x" * 1_000))
    assert cut.endswith("(1 line before it left out)")
    assert len(cut.partition(" ")[2]) <= 300
