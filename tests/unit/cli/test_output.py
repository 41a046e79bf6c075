"""What is printed: JSON when asked for, whole tables in pipes, figures that people can read."""

from __future__ import annotations

import json

import pytest

from ktrdr.cli.output import Output, figure


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (1234567, "1,234,567"),
        (1234.5678, "1,234.57"),
        (12.34567, "12.346"),
        (0.0123456, "0.01235"),
        (["a", "b"], "a, b"),
        ({"a": 1, "b": 0.5}, "a 1, b 0.5"),
        ("text", "text"),
    ],
)
def test_figures(value: object, text: str) -> None:
    assert figure(value) == text


def test_json_is_one_document_and_remarks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=True)
    out.note("working")
    out.table({"items": [1]}, ("a",), [[1]])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"items": [1]}
    assert captured.err == ""


def test_a_table_in_a_pipe_keeps_long_cells_whole(capsys: pytest.CaptureFixture[str]) -> None:
    name = "op_backtesting_20260101_120000_" + "x" * 80
    Output().table({}, ("id", "bars"), [[name, 1000], ["b", 2]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [name, "1,000"]


def test_an_empty_table_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table({"items": []}, ("a",), [], empty="Nothing. Import some.")
    assert capsys.readouterr().out == "Nothing. Import some.\n"


def test_a_mapping_leaves_out_what_is_undefined(capsys: pytest.CaptureFixture[str]) -> None:
    Output().mapping({}, {"rows": 10, "end": None, "sharpe_ratio": 0.5})
    assert capsys.readouterr().out.splitlines() == ["rows          10", "sharpe_ratio  0.5"]


def test_not_animated_when_stdout_is_no_terminal() -> None:
    assert not Output().animated
