"""``ktrdr demo``: the whole path on real prices, by real processes, in under a minute."""

from __future__ import annotations

import shutil
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import click

from ktrdr.cli.client import Api, Json
from ktrdr.cli.fleet import Fleet, FleetPlan, termination_as_interrupt
from ktrdr.cli.follow import submit
from ktrdr.cli.output import Output, figure, heading
from ktrdr.cli.statistics import print_statistics
from ktrdr.settings import api_token

__all__ = ["demo"]


@click.command()
@click.option("--strategy", default="sp500_trend", show_default=True, help="One of the bundled strategies.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("ktrdr-demo"),
    show_default=True,
    help="Folder for the report.",
)
def demo(strategy: str, output: Path) -> None:
    """Train and backtest a strategy on real prices, through a fleet on this machine.

    Starts a backend, one training and two backtesting workers on loopback, in a home of its own that is removed
    afterwards; trains on the strategy's training dates, backtests on dates the model never saw, and writes a
    report. Needs no network.
    """
    from ktrdr.cli.reporting import prepare_folder, write_report  # lazy: loads models, market data and plots

    started = time.monotonic()
    text, first_unseen = _document(strategy)
    prepare_folder(output)
    home = Path(tempfile.mkdtemp(prefix="ktrdr-demo-"))
    plan = FleetPlan(home=home, port=0, without=_THE_USERS)
    try:
        with termination_as_interrupt(), Fleet(plan, say=click.echo) as fleet:
            _step(1, "Starting a backend, 1 training and 2 backtesting workers on this machine")
            fleet.start()
            with Api(fleet.url, api_token()) as api:
                operation_id = _show(api, strategy, text, first_unseen)
                _step(5, "Writing the report")
                page, picture = write_report(api, operation_id, output)
            _step(6, "Stopping the fleet")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    click.echo(f"\nReport:  {page}\nPicture: {picture}\nDone in {time.monotonic() - started:.0f} s.")
    click.echo("Next: 'ktrdr up' keeps a fleet running; the README's tour goes on from there.")


def _show(api: Api, strategy: str, text: str, first_unseen: str) -> str:
    """Steps 2 to 4; returns the backtest's id."""
    out = Output()
    _step(2, "Importing the bundled real prices")
    for item in api.post("/data/samples")["items"]:
        click.echo(
            f"      {item['symbol']} {item['timeframe']}: {item['rows']:,} bars, {item['start'][:10]} to {item['end'][:10]}"
        )
    _step(3, f"Training '{strategy}' on the dates before {first_unseen}")
    body = {"strategy": text}
    trained = _done(submit(api, out, "/trainings/start", body, detach=False, cancel_on_interrupt=True))
    summary = ", ".join(
        f"{key} {figure(value)}" for key, value in trained["result_summary"].items() if key in _TOLD
    )
    click.echo(f"      by worker {trained['worker_id']}: {summary}")
    _step(4, f"Backtesting the model from {first_unseen} on, dates it never saw")
    body |= {"start_date": first_unseen}
    tested = _done(submit(api, out, "/backtests/start", body, detach=False, cancel_on_interrupt=True))
    click.echo(f"      by worker {tested['worker_id']}\n")
    print_statistics(out, api.get(f"/operations/{tested['operation_id']}/results")["result"])
    click.echo("")
    return str(tested["operation_id"])


# the demo's fleet is nobody else's
_THE_USERS = (
    *("KTRDR_DATABASE_URL", "KTRDR_DATABASE_URL_FILE"),
    *("KTRDR_ALLOWED_HOSTS", "KTRDR_ALLOWED_WORKER_NETWORKS"),
    *("KTRDR_TLS_CERT", "KTRDR_TLS_KEY", "KTRDR_TLS_CA", "KTRDR_TLS_CLIENT_CA"),
)
_TOLD = ("model_id", "best_epoch", "val_loss", "test_accuracy")


def _document(name: str) -> tuple[str, str]:
    """The text of a bundled strategy (not of a file of that name that lies here), and the first day after its training."""
    from ktrdr.strategies.library import StrategyLibrary, example_root  # lazy: loads the indicator catalog

    library = StrategyLibrary([example_root()])
    end = library.get(name).training_data.end_date
    if end is None:
        raise click.UsageError(f"Strategy '{name}' trains on all dates, so nothing is left to test it on.")
    return library.text(name), str(end + timedelta(days=1))


def _done(operation: Json | None) -> Json:
    if operation is None:
        raise AssertionError("a followed operation returns when it is done")
    return operation


def _step(number: int, text: str) -> None:
    click.echo(heading(f"[{number}/6] {text}"))
