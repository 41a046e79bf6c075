"""``ktrdr up``: a fleet on this machine, in the foreground."""

from __future__ import annotations

import click

from ktrdr.cli.client import Api
from ktrdr.cli.fleet import Fleet, FleetPlan, termination_as_interrupt
from ktrdr.protocol.tls import client_context
from ktrdr.settings import api_token, home

__all__ = ["up"]


@click.command()
@click.option(
    "--training-workers", type=click.IntRange(0, 64), default=1, show_default=True, help="How many."
)
@click.option(
    "--backtest-workers", type=click.IntRange(0, 64), default=2, show_default=True, help="How many."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The backend's address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The backend's port; 0 takes a free one.",
)
def up(training_workers: int, backtest_workers: int, host: str, port: int) -> None:
    """Run a backend and workers on this machine until Ctrl-C.

    A part that crashes is reported and started again. Everything is kept under KTRDR_HOME.
    """
    plan = FleetPlan(
        home=home(),
        host=host,
        port=port,
        training_workers=training_workers,
        backtesting_workers=backtest_workers,
    )
    with termination_as_interrupt():
        try:
            with Fleet(plan, say=click.echo) as fleet:
                click.echo(
                    f"Starting a backend, {training_workers} training and {backtest_workers} backtesting workers ..."
                )
                fleet.start()
                _bring_samples(fleet.url)
                click.echo(f"Ready at {fleet.url}  (data and logs: {plan.home})")
                if fleet.url != "http://127.0.0.1:8000":
                    click.echo(f"In another terminal: export KTRDR_API_URL={fleet.url}")
                click.echo(
                    "Try in another terminal: ktrdr models train --strategy sp500_trend\nCtrl-C stops everything."
                )
                fleet.watch()
        except KeyboardInterrupt:
            click.echo("\nStopped.")


def _bring_samples(url: str) -> None:
    """A fresh store gets the bundled data, so that the first command works; a store in use is left alone."""
    with Api(url, api_token(), tls=client_context()) as api:
        if api.get("/data")["total"] == 0:
            api.post("/data/samples")
            click.echo("Imported the bundled data: S&P 500, Nasdaq (1d), EURUSD (1h).")
