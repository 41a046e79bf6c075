"""Messages take in only what can be stored and sent out again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ktrdr.operations.jsontext import dump
from ktrdr.operations.progress import Progress
from ktrdr.protocol.messages import Capabilities, DeliverRequest, HealthView, ProgressView


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _delivery(**fields: Any) -> DeliverRequest:
    return DeliverRequest(operation_id="op", attempt=1, status="completed", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"summary": {"x": _nested(40)}},
        {"summary": {"x": {"y": _nested(900)}}},
        {"summary": {"x": "y" * 200_000}},
        {"progress": {"context": {"x": _nested(300)}}},
        {"progress": {"items_done": -1}},
        {"progress": {"items_done": 1, "items_total": 10**400}},
        {"progress": {"message": "m" * 5_000}},
    ],
)
def test_what_could_not_go_out_again_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _delivery(**fields)


@pytest.mark.parametrize(
    "fields", [{"memory_gb": float("inf")}, {"gpu_memory_gb": -1.0}, {"cores": 10**30}, {"version": "9" * 65}]
)
def test_capabilities_that_no_machine_has_are_refused(fields: dict[str, Any]) -> None:
    """An infinity would be null in the ledger, and the worker unreadable after a restart of the backend."""
    with pytest.raises(ValidationError):
        Capabilities(**fields)


def test_a_health_answer_is_moderate_too() -> None:
    with pytest.raises(ValidationError):
        HealthView(worker_status="idle", worker_id="w", instance_id="i", version="0", gpu={"x": _nested(100)})


def test_half_characters_become_question_marks() -> None:
    delivery = _delivery(error="a\ud800b", progress={"message": "\udfff"})
    assert delivery.error == "a?b"
    assert delivery.progress is not None
    assert delivery.progress.message == "?"
    json.loads(delivery.model_dump_json())


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=3), _json, max_size=3))
def test_what_is_taken_in_goes_out_again(summary: dict[str, Any]) -> None:
    assert json.loads(_delivery(summary=summary).model_dump_json())["operation_id"] == "op"


@pytest.mark.parametrize("progress", [Progress(3, 12, "bar 3", {"x": 1}), Progress(0, 0), Progress(5, 0)])
def test_progress_is_the_same_on_both_sides(progress: Progress) -> None:
    view = ProgressView.of(progress)
    assert view.told() == progress
    assert view.percentage == progress.percentage


def test_no_progress_is_nothing_of_nothing() -> None:
    assert ProgressView.of(None) == ProgressView()


@pytest.mark.parametrize("character", ["x", "\x00", "\U0001f600", '"'])
def test_what_is_taken_without_measuring_it_is_small_however_it_is_written(character: str) -> None:
    many = {f"{number:02d}" + character * 48: character * 100 for number in range(64)}
    assert max(len(dump(many)), len(json.dumps(many))) <= 128 << 10
    assert ProgressView(context=many).context == many
    numbers = {str(number): -(2**63) + 1 for number in range(64)}
    assert ProgressView(context=numbers).context == numbers


@pytest.mark.parametrize("item", ["x" * (128 << 10), {"a": ["x" * (128 << 10)]}])
def test_one_large_item_is_still_too_large(item: object) -> None:
    with pytest.raises(ValidationError):
        ProgressView(context={"a": item})
