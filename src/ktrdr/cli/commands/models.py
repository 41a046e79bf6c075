"""``ktrdr models``: train models, look at them, ask them."""

from __future__ import annotations

import shlex
from datetime import date, timedelta

import click

from ktrdr.cli.client import Api
from ktrdr.cli.commands.strategies import explained, read_strategy
from ktrdr.cli.follow import submit
from ktrdr.cli.options import a_name, api_command, start_options
from ktrdr.cli.output import Output, day_and_time, figure
from ktrdr.cli.statistics import print_summary

__all__ = ["models"]


@click.group()
def models() -> None:
    """Models: train, list, show, signal."""


@models.command("train")
@click.option("--strategy", required=True, help="Name of a stored strategy, or a YAML file.")
@click.option(
    "--symbol", "symbols", multiple=True, help="Instead of the document's symbols; may be repeated."
)
@click.option("--timeframe", "timeframes", multiple=True, help="Instead of the document's timeframe.")
@click.option("--start", help="First date to train on, e.g. 2000-01-01. Default: the document's.")
@click.option("--end", help="Last date to train on. Default: the document's.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Instead of the document's seed.")
@click.option("--require-gpu", is_flag=True, help="Only on a GPU worker; fails where none is registered.")
@start_options
@api_command
def train(
    strategy: str,
    symbols: tuple[str, ...],
    timeframes: tuple[str, ...],
    start: str | None,
    end: str | None,
    seed: int | None,
    require_gpu: bool,
    detach: bool,
    cancel_on_interrupt: bool,
    reject_when_busy: bool,
    priority: int | None,
    time_limit: float | None,
    api: Api,
    out: Output,
) -> None:
    """Train a model and follow the training."""
    body = {
        **read_strategy(strategy),
        "symbols": list(symbols) or None,
        "timeframes": list(timeframes) or None,
        "start_date": start,
        "end_date": end,
        "seed": seed,
        "require_gpu": require_gpu or None,
        "when_busy": "reject" if reject_when_busy else None,
        "priority": priority,
        "time_limit_s": time_limit,
    }
    with explained(strategy):
        operation = submit(
            api, out, "/trainings/start", body, detach=detach, cancel_on_interrupt=cancel_on_interrupt
        )
    if operation is not None:
        print_summary(out, operation)
        tell_next(api, out, strategy, operation["operation_id"], symbols, timeframes)


def tell_next(
    api: Api,
    out: Output,
    strategy: str,
    operation_id: str,
    symbols: tuple[str, ...],
    timeframes: tuple[str, ...],
) -> None:
    """The command that tests the model on the first dates it has not seen; what replaced the document's is in it."""
    spec = api.get(f"/operations/{operation_id}/spec")["spec"]
    if spec["end_date"] is not None:
        unseen = date.fromisoformat(spec["end_date"]) + timedelta(days=1)
        given = ("--strategy", [strategy]), ("--symbol", symbols[:1]), ("--timeframe", timeframes[:1])
        options = [word for option, values in given for value in values for word in (option, value)]
        out.note(f"Next: ktrdr backtest run {shlex.join(options)} --start {unseen}")


@models.command("list")
@click.option("--strategy", help="Only models of this strategy.")
@api_command
def list_(strategy: str | None, api: Api, out: Output) -> None:
    """List trained models, newest first."""
    answer = api.get("/models", strategy_name=strategy)
    rows = [
        (m["model_id"], m["strategy_name"], m["symbols"], m["timeframes"], day_and_time(m["created_at"]))
        for m in answer["items"]
    ]
    columns = ("model_id", "strategy", "symbols", "timeframes", "created (UTC)")
    whose = f"No model of a strategy '{strategy}'" if strategy else "No models yet"
    train = f"ktrdr models train --strategy {shlex.quote(strategy or 'sp500_trend')}"
    empty = f"{whose}. Train one: {train}"
    out.table(answer, columns, rows, empty=empty, spare=("strategy", "created (UTC)"))


@models.command("show")
@click.argument("model_id", callback=a_name)
@api_command
def show(model_id: str, api: Api, out: Output) -> None:
    """Show a model: what it was trained on, with what result."""
    answer = api.get(f"/models/{model_id}")
    flat = {k: v for k, v in answer.items() if not isinstance(v, dict)} | (answer.get("metrics") or {})
    out.mapping(answer, flat)


@models.command("signal")
@click.argument("model_id", callback=a_name)
@click.option("--symbol", required=True, help="Whose newest bar to judge.")
@api_command
def signal(model_id: str, symbol: str, api: Api, out: Output) -> None:
    """What the model says on the newest bar: action, confidence, memberships."""
    answer = api.get(f"/models/{model_id}/signal", symbol=symbol)
    memberships = [f"  {name:<40} {figure(value)}" for name, value in answer["memberships"].items()]
    out.result(
        answer,
        f"{answer['symbol']} {answer['timeframe']} at the close of {day_and_time(answer['time'])} UTC: "
        f"{answer['action']} (confidence {figure(answer['confidence'])})",
        *(f"  {name:<6} {figure(value)}" for name, value in answer["probabilities"].items()),
        "Inputs:",
        *memberships,
    )
