"""Advice about a strategy in a file names the file: its name alone is known to nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ktrdr.cli.commands.strategies import explained
from ktrdr.errors import InvalidInput, KtrdrError, NotFound


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("mine.yaml", "ktrdr models train --strategy mine.yaml --timeframe 5m"),
        ("my ideas/a.yaml", "ktrdr models train --strategy 'my ideas/a.yaml' --timeframe 5m"),
        (r"odd\1.yaml", r"ktrdr models train --strategy 'odd\1.yaml' --timeframe 5m"),
        ("idea", "ktrdr models train --strategy idea --timeframe 5m"),
    ],
)
@pytest.mark.parametrize(
    "fault",
    [  # made anew for each test: a message is changed in place
        lambda: NotFound("model", "x", hint="Train one: ktrdr models train --strategy idea --timeframe 5m"),
        lambda: InvalidInput("Train it again: ktrdr models train --strategy idea --timeframe 5m"),
    ],
)
def test_the_command_that_is_advised_can_be_copied(
    fault: Callable[[], KtrdrError], given: str, told: str
) -> None:
    with pytest.raises(KtrdrError) as caught, explained(given):
        raise fault()
    assert told in caught.value.message
