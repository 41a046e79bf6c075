"""The worker's one place, and what a probe hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from ktrdr.protocol.messages import DeliverRequest
from ktrdr.testing.operations import T0
from ktrdr.workers.slot import Entry, Slot


class _Run:
    operation_id, attempt = "op", 1


def ended() -> tuple[Slot, Entry]:
    """A slot whose run has ended and is being reported."""
    slot, run = Slot(), _Run()
    taken: Any = run
    slot.take("op", 1, lambda: taken)
    entry = slot.leave(taken, DeliverRequest(operation_id="op", attempt=1, status="completed"), T0)
    entry.delivery = "sending"
    return slot, entry


@pytest.mark.parametrize(("acknowledged", "state"), [(True, "done"), (False, "waiting")])
def test_a_report_that_came_back(acknowledged: bool, state: str) -> None:
    slot, entry = ended()
    slot.sent(entry, acknowledged=acknowledged)
    assert entry.delivery == state
    assert (slot.visible() is None) is acknowledged


def test_an_end_that_went_along_with_a_registration_stays_acknowledged() -> None:
    """The report got no answer, but the registration meanwhile brought the same end: nothing waits any more."""
    slot, entry = ended()
    slot.acknowledged("op:1")
    slot.sent(entry, acknowledged=False)
    assert entry.delivery == "done"
    assert slot.visible() is None
