"""Canonical JSON, exact times, cursors and ids: the small forms the ledger relies on."""

from __future__ import annotations

import re
from collections import UserDict
from datetime import UTC, datetime, timedelta
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidInput
from ktrdr.operations.ids import new_operation_id
from ktrdr.operations.jsontext import dump, dump_ascii
from ktrdr.operations.microseconds import from_microseconds, to_microseconds
from ktrdr.operations.model import OperationType
from ktrdr.operations.paging import decode_cursor, encode_cursor
from ktrdr.testing.clock import FakeClock


def test_json_is_canonical() -> None:
    assert dump({"b": (1, 2), "a": "ü"}) == '{"a":"ü","b":[1,2]}'
    assert dump_ascii({"a": "ü"}) == b'{"a":"\\u00fc"}'


def test_half_characters_become_question_marks() -> None:
    assert dump({"a\ud800": "x\udfff", "b": "\U0001f600"}) == '{"a?":"x?","b":"\U0001f600"}'
    assert dump_ascii({"a": "\ud800", "b": "\U0001f600"}) == b'{"a":"?","b":"\\ud83d\\ude00"}'


def test_what_is_not_finite_becomes_null_at_any_depth() -> None:
    value = {"a": [float("nan"), {"b": float("inf")}, (1.5, -float("inf"))], "n": np.float64("nan")}
    assert dump(value) == '{"a":[null,{"b":null},[1.5,null]],"n":null}'


def test_numpy_scalars_and_mappings_are_plain() -> None:
    assert dump({"n": np.int64(3), "f": np.float32(0.5), "t": np.bool_(True)}) == '{"f":0.5,"n":3,"t":true}'
    assert dump(UserDict(a=1)) == '{"a":1}'


def test_float32_nan_becomes_null() -> None:
    assert dump({"loss": np.float32("nan")}) == '{"loss":null}'


def test_what_has_no_json_form_is_named() -> None:
    with pytest.raises(TypeError, match="datetime has no JSON form"):
        dump({"when": datetime(2026, 1, 1, tzinfo=UTC)})


@settings(max_examples=100)
@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_times_are_exact_both_ways(moment: datetime) -> None:
    assert from_microseconds(to_microseconds(moment)) == moment


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(TypeError):
        to_microseconds(datetime(2026, 1, 1))


@settings(max_examples=60)
@given(st.integers(-6 * 10**16, 10**17), st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True))
def test_cursors_come_back(microseconds: int, name: str) -> None:
    cursor = encode_cursor((microseconds, name))
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert decode_cursor(cursor) == (microseconds, name)


@settings(max_examples=100)
@given(st.text(max_size=40))
def test_no_text_breaks_the_cursor_parser(text: str) -> None:
    try:
        microseconds, name = decode_cursor(text)
    except InvalidInput:
        return
    from_microseconds(microseconds)
    assert name


def test_ids_are_readable_sortable_and_repeatable() -> None:
    clock = FakeClock()
    first = new_operation_id(OperationType.BACKTESTING, clock, Random(7))
    assert re.fullmatch(r"op_backtesting_20260101_120000_[0-9a-f]{8}", first)
    assert first == new_operation_id(OperationType.BACKTESTING, clock, Random(7))
    clock.advance(1)
    later = [new_operation_id(OperationType.BACKTESTING, clock, Random(seed)) for seed in range(50)]
    assert len(set(later)) == 50
    assert all(name > first for name in later)


def test_the_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock()
    start, ticks = clock.now(), clock.monotonic()
    assert clock.advance(1.5) == start + timedelta(seconds=1.5) == clock.now()
    assert clock.monotonic() == ticks + 1.5
    clock.jump(-3600)
    assert clock.now() == start + timedelta(seconds=1.5 - 3600)
    assert clock.monotonic() == ticks + 1.5
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="no time zone"):
        FakeClock(datetime(2026, 1, 1))
