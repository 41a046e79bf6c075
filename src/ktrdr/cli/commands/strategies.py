"""``ktrdr strategies``: strategy documents, on the backend and in files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ktrdr.cli.client import Api, reworded
from ktrdr.cli.options import a_name, api_command, json_option
from ktrdr.cli.output import Output
from ktrdr.errors import Conflict, InvalidInput, InvalidStrategy, NotFound
from ktrdr.settings import home

__all__ = ["explained", "read_strategy", "strategies"]

_INLINE = "<inline>"  # what the backend calls a document that came as text
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # what has a dot or a slash is no strategy's name


def read_strategy(name_or_file: str) -> dict[str, str]:
    """The request fields for a strategy: the text of a file, else the name of a stored one."""
    if _NAME.fullmatch(name_or_file):
        return {"strategy_name": name_or_file}
    path = Path(name_or_file)
    try:
        return {"strategy": path.read_text(encoding="utf-8")}
    except UnicodeDecodeError:
        raise InvalidInput(f"'{name_or_file}' is not UTF-8 text. A strategy is a YAML file.") from None
    except OSError as error:
        raise InvalidInput(
            f"Cannot read the strategy file '{name_or_file}': {error.strerror}. "
            "Give a YAML file, or the name of a stored strategy (see: ktrdr strategies list)."
        ) from None


@contextmanager
def explained(name_or_file: str) -> Iterator[None]:
    """Errors about the strategy name the user's file, or the file that was probably meant."""
    try:
        yield
    except InvalidStrategy as error:
        raise reworded(error, error.message.replace(_INLINE, name_or_file)) from None
    except (NotFound, InvalidInput) as error:
        if not _NAME.fullmatch(name_or_file):
            whose = f"ktrdr models train --strategy {shlex.quote(name_or_file)}"
            advised = re.sub(r"ktrdr models train --strategy [A-Za-z0-9_-]+", lambda _: whose, error.message)
            raise reworded(error, advised) from None
        file = Path(f"{name_or_file}.yaml")
        if isinstance(error, InvalidInput) or f"'{name_or_file}'" not in error.message or not file.is_file():
            raise
        raise reworded(error, f"{error.message} For the file here, write {file}.") from None


@click.group()
def strategies() -> None:
    """Strategy documents: list, show, new, validate, schema."""


@strategies.command("list")
@api_command
def list_(api: Api, out: Output) -> None:
    """List the strategies that the backend knows."""
    answer = api.get("/strategies")
    rows = [(s["name"], s["symbols"], s["timeframes"], s["description"]) for s in answer["items"]]
    columns = ("name", "symbols", "timeframes", "description")
    out.table(answer, columns, rows, empty="No strategies. Write one: ktrdr strategies new NAME")


@strategies.command("show")
@click.argument("name", callback=a_name)
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
        raise InvalidInput(
            f"Cannot write '{path}': {error.strerror}. Choose another place by --output."
        ) from None
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
    """Check a YAML file, or a strategy by name (in KTRDR_HOME/strategies or ./strategies, or an example); needs no
    backend. Exit code 2 lists every fault with its line."""
    from ktrdr.strategies.library import StrategyLibrary, example_root  # lazy, see above
    from ktrdr.strategies.notes import notes_on
    from ktrdr.strategies.parse import parse_strategy

    fields = read_strategy(strategy)
    with explained(strategy):
        if "strategy" in fields:
            parsed = parse_strategy(fields["strategy"], source=strategy)
        else:
            roots = [home() / "strategies", Path.cwd() / "strategies", example_root()]
            parsed = StrategyLibrary(roots).get(strategy)
    notes = [str(note) for note in notes_on(parsed)]
    facts = {"valid": True, "name": parsed.name, "symbols": list(parsed.symbols), "notes": notes}
    out.result(facts, f"{strategy}: valid. Strategy '{parsed.name}'.", *(f"  note: {note}" for note in notes))


@strategies.command("schema")
def schema() -> None:
    """Print the JSON Schema of strategy documents, for editors that complete and check."""
    from ktrdr.strategies.schema import json_schema  # lazy, see above

    click.echo(json.dumps(json_schema(), indent=2))
