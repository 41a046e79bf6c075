"""``ktrdr strategies``: strategy documents, on the backend and in files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ktrdr.cli.client import Api
from ktrdr.cli.options import api_command, json_option
from ktrdr.cli.output import Output
from ktrdr.errors import Conflict, InvalidInput

__all__ = ["read_strategy", "strategies"]


def read_strategy(name_or_file: str) -> dict[str, str]:
    """The request fields for a strategy: the text of a file, else the name of a stored one."""
    path = Path(name_or_file)
    looks_like_a_file = path.suffix in (".yaml", ".yml") or path.parent != Path()
    if not looks_like_a_file:
        return {"strategy_name": name_or_file}
    try:
        return {"strategy": path.read_text(encoding="utf-8")}
    except UnicodeDecodeError:
        raise InvalidInput(f"'{name_or_file}' is not UTF-8 text. A strategy is a YAML file.") from None
    except OSError as error:
        raise InvalidInput(
            f"Cannot read the strategy file '{name_or_file}': {error.strerror}. "
            "Give a YAML file, or the name of a stored strategy (see: ktrdr strategies list)."
        ) from None


@click.group()
def strategies() -> None:
    """Strategy documents: list, show, new, validate, schema."""


@strategies.command("list")
@api_command
def list_(api: Api, out: Output) -> None:
    """List the strategies that the backend knows."""
    answer = api.get("/strategies")
    rows = [(s["name"], s["symbols"], s["timeframes"], s["description"]) for s in answer["items"]]
    out.table(answer, ("name", "symbols", "timeframes", "description"), rows)


@strategies.command("show")
@click.argument("name")
@api_command
def show(name: str, api: Api, out: Output) -> None:
    """Print a stored strategy's YAML."""
    answer = api.get(f"/strategies/{name}")
    out.result(answer, answer["text"].rstrip("\n"))


@strategies.command("new")
@click.argument("name")
@click.option("--output", type=click.Path(path_type=Path), help="File to write. Default: NAME.yaml here.")
@json_option
def new(name: str, output: Path | None, out: Output) -> None:
    """Write a commented starter document for a strategy called NAME."""
    from ktrdr.strategies.starter import starter  # lazy: the document's parser loads the indicator catalog

    path = output or Path(f"{name}.yaml")
    text = starter(name)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(
            f"'{path}' exists already and was left as it is. Choose another name or --output."
        ) from None
    except OSError as error:
        raise InvalidInput(f"Cannot write '{path}': {error.strerror}.") from None
    out.result(
        {"path": str(path)},
        f"Wrote {path}. Edit it, then:",
        f"  ktrdr strategies validate {path}",
        f"  ktrdr models train --strategy {path}",
    )


@strategies.command("validate")
@click.argument("strategy")
@json_option
def validate(strategy: str, out: Output) -> None:
    """Check a YAML file, or an example by name; needs no backend. Exit code 2 lists every fault with its line."""
    from ktrdr.strategies.library import StrategyLibrary, example_root  # lazy, see above
    from ktrdr.strategies.notes import notes_on
    from ktrdr.strategies.parse import parse_strategy

    fields = read_strategy(strategy)
    if "strategy" in fields:
        parsed = parse_strategy(fields["strategy"], source=strategy)
    else:
        parsed = StrategyLibrary([example_root()]).get(strategy)
    notes = [str(note) for note in notes_on(parsed)]
    facts = {"valid": True, "name": parsed.name, "symbols": list(parsed.symbols), "notes": notes}
    out.result(facts, f"{strategy}: valid. Strategy '{parsed.name}'.", *(f"  note: {note}" for note in notes))


@strategies.command("schema")
def schema() -> None:
    """Print the JSON Schema of strategy documents, for editors that complete and check."""
    from ktrdr.strategies.schema import json_schema  # lazy, see above

    click.echo(json.dumps(json_schema(), indent=2))
