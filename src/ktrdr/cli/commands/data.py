"""``ktrdr data``: market data in the backend's store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import click

from ktrdr.cli.client import Api, Json
from ktrdr.cli.options import a_name, api_command
from ktrdr.cli.output import Output
from ktrdr.errors import InvalidInput

__all__ = ["data"]

_COLUMNS = ("symbol", "timeframe", "rows", "start", "end", "calendar", "source")
_UPLOAD_TIMEOUT_S = 300.0


@click.group()
def data() -> None:
    """Market data: import, list, show, delete, samples."""


@data.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--symbol", required=True, help="Name of the instrument, e.g. EURUSD.")
@click.option("--timeframe", required=True, help="Bar length: 1m 5m 15m 30m 1h 2h 4h 1d 1w.")
@click.option("--calendar", help="24/7, 24/5 or an exchange code such as XNYS. Default: inferred and said.")
@click.option(
    "--policy",
    type=click.Choice(["refuse", "quarantine", "repair"]),
    default="refuse",
    show_default=True,
    help="What to do with bad rows; anything but refuse is recorded with the data.",
)
@click.option("--time-zone", metavar="ZONE", help="Of stamps without an offset, e.g. America/New_York.")
@api_command
def import_(
    file: Path,
    symbol: str,
    timeframe: str,
    calendar: str | None,
    policy: str,
    time_zone: str | None,
    api: Api,
    out: Output,
) -> None:
    """Import a CSV (also .gz) or Parquet FILE of bars."""
    with _opened(file) as content:
        answer = api.upload(
            "/data/import",
            content,
            timeout_s=_UPLOAD_TIMEOUT_S,
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)},
            symbol=symbol,
            timeframe=timeframe,
            calendar=calendar,
            policy=policy,
            time_zone=time_zone,
            filename=file.name,
        )
    _, *seen = answer["report"]  # its first line says what the line below says
    out.result(answer, _line("Imported", answer), *(f"  {remark}" for remark in seen))


@data.command("samples")
@api_command
def samples(api: Api, out: Output) -> None:
    """Import the bundled real data: S&P 500 and Nasdaq daily 1999-2018, EURUSD hourly 2017."""
    answer = api.post("/data/samples")
    out.result(answer, *(_line("Ready:", item) for item in answer["items"]))


@data.command("list")
@api_command
def list_(api: Api, out: Output) -> None:
    """List what the backend has."""
    answer = api.get("/data")
    out.table(
        answer,
        _COLUMNS,
        [_row(item) for item in answer["items"]],
        empty="No data yet. Import some: ktrdr data samples",
    )


@data.command("show")
@click.argument("symbol", callback=a_name)
@click.argument("timeframe", callback=a_name)
@api_command
def show(symbol: str, timeframe: str, api: Api, out: Output) -> None:
    """Show one dataset: range, source, licence, digest."""
    answer = api.get(f"/data/{symbol}/{timeframe}")
    out.mapping(answer, {k: v for k, v in answer.items() if not isinstance(v, list | dict)})


@data.command("delete")
@click.argument("symbol", callback=a_name)
@click.argument("timeframe", callback=a_name)
@api_command
def delete(symbol: str, timeframe: str, api: Api, out: Output) -> None:
    """Delete one dataset from the store; operations already submitted keep their copy."""
    api.delete(f"/data/{symbol}/{timeframe}")
    out.result({"deleted": f"{symbol}/{timeframe}"}, f"Deleted {symbol} {timeframe}.")


def _opened(file: Path) -> BinaryIO:
    what = "Give the path of a CSV, CSV.gz or Parquet file."
    if not file.is_file():
        raise InvalidInput(f"'{file}' is not a file. {what}")
    try:
        if not file.stat().st_size:
            raise InvalidInput(f"'{file}' is empty. Export or download it again.")
        return file.open("rb")
    except OSError as error:
        raise InvalidInput(f"Cannot read '{file}': {error.strerror}.") from None


def _row(item: Json) -> list[Any]:
    return [str(item[key])[:10] if key in ("start", "end") else item[key] for key in _COLUMNS]


def _line(verb: str, item: Json) -> str:
    span = f"{str(item['start'])[:10]} to {str(item['end'])[:10]}"
    bars = f"{item['rows']:,} bar{'' if item['rows'] == 1 else 's'}"
    return f"{verb} {item['symbol']} {item['timeframe']}: {bars}, {span}"
