"""Tables: whole names, figures that line up, and a terminal's width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.cli.tables import column_texts, figure, table_lines

ROWS = [("op_" + "a" * 33, "training", "completed", "a long story about what went wrong in the end")]
COLUMNS = ("operation_id", "type", "status", "error")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.001, 0.000125], ["0.0010000", "0.0001250"]),
        ([104231.664, 666.189, None], ["104,231.66", "666.19", "-"]),
        ([1 / 3, 0.5], ["0.3333", "0.5000"]),
        ([1.5, 2], ["1.500", "2.000"]),
        ([1, 2000], ["1", "2,000"]),
        ([0.0, 0.0], ["0.000", "0.000"]),
        ([7.276e-15, 1.0], ["7.276e-15", "1.000"]),
        ([float("inf"), 1.0], ["inf", "1.000"]),
        (["a", 1.5], ["a", "1.500"]),
        ([True, False], ["yes", "no"]),
    ],
)
def test_the_numbers_of_a_column_share_their_decimals(values: list[object], texts: list[str]) -> None:
    assert column_texts(values) == texts


def test_a_figure_beyond_all_sense_is_short() -> None:
    assert figure(1e300) == "1e+300"
    assert figure(-2.5e15) == "-2.5e+15"


def test_a_pipe_gets_everything_on_one_line_each() -> None:
    assert table_lines(COLUMNS, ROWS, spare=("type", "error")) == [
        "operation_id                          type      status     error",
        f"{ROWS[0][0]}  training  completed  {ROWS[0][3]}",
    ]


def test_a_narrow_terminal_drops_the_spare_columns_and_folds_the_last() -> None:
    head, *lines = table_lines(COLUMNS, ROWS, width=75, spare=("type", "status"))
    assert head.split() == ["operation_id", "status", "error"]
    assert lines[0].startswith(ROWS[0][0])
    assert max(map(len, lines)) <= 75
    assert "".join(line[36:] for line in lines).split()[-4:] == ["wrong", "in", "the", "end"]
    assert all(line.startswith(" " * 36) for line in lines[1:])


def test_names_are_whole_even_where_nothing_fits() -> None:
    lines = table_lines(("id", "worker"), [("x" * 40, "y" * 40)], width=30)
    assert lines[1] == "x" * 40 + "  " + "y" * 40


def test_the_last_figures_line_up_too() -> None:
    assert table_lines(("", "sharpe"), [("a", "0.54"), ("b", "-12.10 %")]) == [
        "     sharpe",
        "a      0.54",
        "b  -12.10 %",
    ]


@given(
    st.lists(st.tuples(st.text("ab ", min_size=1), st.integers(), st.text("xyz ")), min_size=1, max_size=5),
    st.integers(1, 60),
)
def test_no_name_and_no_number_is_ever_lost(rows: list[tuple[str, int, str]], width: int) -> None:
    text = "\n".join(table_lines(("one", "two", "three"), rows, width=width))
    for name, number, _ in rows:
        assert name.rstrip() in text
        assert f"{number:,}" in text


def test_a_long_story_is_cut_after_three_lines() -> None:
    lines = table_lines(("id", "story"), [("x", "word " * 40)], width=24)
    assert len(lines) == 4
    assert lines[-1] == "    word word word …"
