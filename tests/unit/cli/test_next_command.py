"""The command that a training ends with tests what was trained, not what the document says."""

from __future__ import annotations

import pytest

from ktrdr.cli.client import Api
from ktrdr.cli.commands.models import tell_next
from ktrdr.cli.output import Output
from support.scripted_backend import Said, scripted

RUN = "Next: ktrdr backtest run --strategy my_idea.yaml"


@pytest.mark.parametrize(
    ("symbols", "timeframes", "told"),
    [
        ((), (), f"{RUN} --start 2013-01-01"),
        (("NASDAQ",), (), f"{RUN} --symbol NASDAQ --start 2013-01-01"),
        (("NASDAQ", "^GSPC"), (), f"{RUN} --symbol NASDAQ --start 2013-01-01"),
        (("^GSPC",), ("1h",), f"{RUN} --symbol '^GSPC' --timeframe 1h --start 2013-01-01"),
    ],
)
def test_what_was_asked_for_is_asked_for_again(
    symbols: tuple[str, ...], timeframes: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        scripted(lambda _, __: Said({"spec": {"end_date": "2012-12-31"}})) as backend,
        Api(backend.url) as api,
    ):
        tell_next(api, Output(False), "my_idea.yaml", "op_1", symbols, timeframes)
    assert capsys.readouterr().err.strip() == told


def test_where_all_dates_were_used_there_is_nothing_to_test(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(lambda _, __: Said({"spec": {"end_date": None}})) as backend, Api(backend.url) as api:
        tell_next(api, Output(False), "my_idea.yaml", "op_1", (), ())
    assert capsys.readouterr().err == ""
