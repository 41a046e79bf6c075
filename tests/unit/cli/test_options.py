"""Names cannot lead to another route, numbers are finite and within their limits."""

from __future__ import annotations

import click
import pytest

from ktrdr.cli.commands.audit import a_moment
from ktrdr.cli.commands.backtest import run
from ktrdr.cli.commands.tokens import a_duration
from ktrdr.cli.options import a_name, a_number

CONTEXT = click.Context(click.Command("x"))
PARAMETER = run.params[0]


@pytest.mark.parametrize(
    "name", ["SP500", "^GSPC", "BRK.B", "EURUSD=X", "op_1", "sp500_trend-a7d7", ".hidden"]
)
def test_names(name: str) -> None:
    assert a_name(CONTEXT, PARAMETER, name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "a/b", "a b", "x?y", "x#y", "é", "a%2Fb", "a\nb"])
def test_what_would_lead_elsewhere_is_refused_by_name(name: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        a_name(CONTEXT, PARAMETER, name)
    assert f"'{name}'" in caught.value.message


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "abc", "", "-1", "1", "2"])
def test_numbers_out_of_reach(text: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        a_number("0.001 for 0.1 %", least=0, below=1)(CONTEXT, PARAMETER, text)
    assert f"'{text}' is not a number of at least 0 and below 1, such as 0.001" in caught.value.message


@pytest.mark.parametrize("text", ["0d", "3661d", "999999w", "99999999999d", "-1d", "1.5d", "30", "d", "1y"])
def test_durations_out_of_reach(text: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        a_duration(CONTEXT, PARAMETER, text)
    assert f"'{text}' is not a duration: a whole number and m, h, d or w" in caught.value.message
    assert "at most 3660d" in caught.value.message
    with pytest.raises(click.BadParameter, match=f"'{text}' is no time: .* at most 3660d"):
        a_moment(CONTEXT, PARAMETER, text)


def test_durations() -> None:
    assert a_duration(CONTEXT, PARAMETER, "30d") == 30 * 86_400
    assert a_duration(CONTEXT, PARAMETER, "5270400m") == 3660 * 86_400
    assert a_duration(CONTEXT, PARAMETER, None) is None


def test_numbers() -> None:
    share = a_number("0.001", least=0, below=1)
    assert share(CONTEXT, PARAMETER, "0") == 0.0
    assert share(CONTEXT, PARAMETER, "0.999") == 0.999
    assert share(CONTEXT, PARAMETER, None) is None
    with pytest.raises(click.BadParameter):
        a_number("1", above=0)(CONTEXT, PARAMETER, "0")
