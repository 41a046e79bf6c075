"""Codes and lengths of bars."""

import pytest

from ktrdr.errors import InvalidInput
from ktrdr.timeframe import Timeframe


def test_every_code_is_its_own_name_and_lengths_increase() -> None:
    assert [str(item) for item in Timeframe] == ["1m", "5m", "15m", "30m", "1h", "2h", "4h", "1d", "1w"]
    lengths = [item.seconds for item in Timeframe]
    assert lengths == sorted(lengths)
    assert [item.intraday for item in Timeframe] == [True] * 7 + [False] * 2
    assert Timeframe.H1.microseconds == 3_600_000_000


def test_parse_accepts_codes_and_timeframes() -> None:
    assert Timeframe.parse("1h") is Timeframe.H1
    assert Timeframe.parse(Timeframe.D1) is Timeframe.D1


def test_a_wrong_code_gets_a_hint_and_the_list() -> None:
    with pytest.raises(InvalidInput, match=r"'1H'; did you mean '1h'\? Accepted: 1m, 5m, 15m, 30m, 1h"):
        Timeframe.parse("1H")
