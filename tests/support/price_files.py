"""Small price files, read where they must be accepted or must be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.bars import Bars
from ktrdr.errors import InvalidBars
from ktrdr.market import import_file
from ktrdr.timeframe import Timeframe

HOURS = """time,open,high,low,close,volume
2017-01-02T00:00:00Z,1.10,1.20,1.00,1.15,10
2017-01-02T01:00:00Z,1.15,1.25,1.05,1.20,11
2017-01-02T02:00:00Z,1.20,1.30,1.10,1.25,12
2017-01-02T03:00:00Z,1.25,1.35,1.15,1.30,13
2017-01-02T04:00:00Z,1.30,1.40,1.20,1.35,14
"""
DAYS = """date,open,high,low,close,volume
2017-01-03,100,110,90,105,1000
2017-01-04,105,115,95,100,1000
2017-01-05,100,110,90,105,1000
"""


def refused(tmp_path: Path, text: str | bytes, timeframe: str = "1h", **options: object) -> str:
    """The message that refuses a file of this content."""
    file = tmp_path / "prices.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidBars) as caught:
        import_file(file, symbol="TEST", timeframe=Timeframe(timeframe), **{"calendar": "24/7"} | options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert str(file) in message
    assert "Nothing was stored" in message
    return message


def accepted(tmp_path: Path, text: str, timeframe: str = "1h", **options: object) -> Bars:
    file = tmp_path / "prices.csv"
    file.write_text(text)
    return import_file(
        file, symbol="TEST", timeframe=Timeframe(timeframe), **{"calendar": "24/7"} | options
    ).bars  # type: ignore[arg-type]
