"""``ktrdr backtest``: run a trained model over dates it never saw."""

from __future__ import annotations

import click

from ktrdr.cli.client import Api
from ktrdr.cli.commands.operations import cancel_operation
from ktrdr.cli.commands.strategies import explained, read_strategy
from ktrdr.cli.follow import submit
from ktrdr.cli.options import a_name, a_number, api_command, start_options
from ktrdr.cli.output import Output
from ktrdr.cli.statistics import print_statistics

__all__ = ["backtest"]

_DEAR = 0.02  # a share beyond this was more likely meant as a percentage or an amount


@click.group()
def backtest() -> None:
    """Backtests: run, cancel."""


@backtest.command("run")
@click.option("--strategy", required=True, help="Name of a stored strategy, or a YAML file.")
@click.option("--model", "model_id", help="Model id. Default: the newest model of the strategy.")
@click.option("--symbol", help="Default: the strategy's.")
@click.option("--timeframe", help="Default: the strategy's.")
@click.option("--start", help="First date, e.g. 2015-01-01; bars before it feed the warm-up.")
@click.option("--end", help="Last date.")
@click.option(
    "--capital",
    metavar="FLOAT",
    callback=a_number("100000", above=0, below=1e15),
    help="Initial capital. Default: the strategy's.",
)
@click.option(
    "--commission",
    metavar="FLOAT",
    callback=a_number("0.001 for 0.1 %", least=0, below=1),
    help="Share of the traded value, e.g. 0.001. Default: the strategy's.",
)
@click.option(
    "--slippage",
    metavar="FLOAT",
    callback=a_number("0.0005 for 5 basis points", least=0, below=1),
    help="Share of the price, e.g. 0.0005. Default: the strategy's.",
)
@start_options
@api_command
def run(
    strategy: str,
    model_id: str | None,
    symbol: str | None,
    timeframe: str | None,
    start: str | None,
    end: str | None,
    capital: float | None,
    commission: float | None,
    slippage: float | None,
    detach: bool,
    cancel_on_interrupt: bool,
    reject_when_busy: bool,
    priority: int | None,
    time_limit: float | None,
    api: Api,
    out: Output,
) -> None:
    """Run a backtest, follow it and print its statistics beside buy-and-hold."""
    body = {
        **read_strategy(strategy),
        "model_id": model_id,
        "symbol": symbol,
        "timeframe": timeframe,
        "start_date": start,
        "end_date": end,
        "initial_capital": capital,
        "commission": commission,
        "slippage": slippage,
        "when_busy": "reject" if reject_when_busy else None,
        "priority": priority,
        "time_limit_s": time_limit,
    }
    for name, share in (("commission", commission), ("slippage", slippage)):
        if share is not None and share > _DEAR:
            out.note(f"Note: --{name} {share:g} takes {100 * share:g} % of each trade's value.")
    with explained(strategy):
        operation = submit(
            api, out, "/backtests/start", body, detach=detach, cancel_on_interrupt=cancel_on_interrupt
        )
    if operation is None:
        return
    results = api.get(f"/operations/{operation['operation_id']}/results")
    if out.as_json:
        out.result({**operation, "results": results})
        return
    print_statistics(out, results["result"])
    out.result(None, "", f"Report: ktrdr report {operation['operation_id']} --open")


@backtest.command("cancel")
@click.argument("operation_id", callback=a_name)
@api_command
def cancel(operation_id: str, api: Api, out: Output) -> None:
    """Cancel a backtest."""
    cancel_operation(api, out, operation_id)
