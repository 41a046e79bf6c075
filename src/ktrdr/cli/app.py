"""The command tree. Each command's module is loaded when it is called, so that ``--help`` stays fast."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from ktrdr.cli.exits import Exit, Interrupted, exit_code
from ktrdr.cli.output import is_terminal
from ktrdr.errors import InvalidInput, KtrdrError, nearest

__all__ = ["LazyGroup", "cli", "run"]

# name -> (module below ktrdr.cli.commands, attribute, one line for --help)
_COMMANDS = {
    "demo": (
        "demo",
        "demo",
        "Train and backtest a strategy on real prices, through a fleet on this machine.",
    ),
    "up": ("up", "up", "Run a backend and workers on this machine until Ctrl-C."),
    "data": ("data", "data", "Market data: import, list, show, delete, samples."),
    "strategies": ("strategies", "strategies", "Strategy documents: list, show, new, validate, schema."),
    "models": ("models", "models", "Models: train, list, show, signal."),
    "backtest": ("backtest", "backtest", "Backtests: run, cancel."),
    "operations": (
        "operations",
        "operations",
        "Operations: list, show, watch, cancel, pause, unpause, retry, resume, results, metrics, logs, delete.",
    ),
    "status": ("status", "status", "The fleet at a glance: the queue, operations and workers."),
    "workers": ("workers", "workers", "Workers: list, show, drain, undrain, forget."),
    "tokens": ("tokens", "tokens", "Tokens of the backend: create, list, revoke."),
    "audit": ("audit", "audit", "Who changed what, when and from where."),
    "report": ("report", "report", "Write the HTML and PNG report of a finished backtest."),
    "backend": ("backend", "backend", "The backend alone: start."),
    "worker": ("worker", "worker", "One worker alone: start."),
    "artifacts": ("artifacts", "artifacts", "Stored files: gc."),
    "backup": ("backup", "backup", "Backups of the ledger and its files: create, verify, restore."),
    "doctor": ("doctor", "doctor", "Check this machine's installation and say what to do."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on first use; ``--help`` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        loaded = importlib.import_module(f"ktrdr.cli.commands.{module}")
        command: click.Command = getattr(loaded, attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = nearest(args[0], _COMMANDS) or "."
            raise click.UsageError(error.message.rstrip(".") + hint, ctx=error.ctx) from None


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="ktrdr", prog_name="ktrdr")
def cli() -> None:
    """Train, backtest and compare neuro-fuzzy trading strategies.

    New here? 'ktrdr demo' shows the whole path in under a minute. 'ktrdr up' keeps a fleet running on this
    machine for the other commands.
    """


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes one message on stderr.

    With ``--json`` the message is a JSON object in the form of the API's problems.
    """
    _spell_what_the_terminal_lacks()
    try:
        return _outcome(argv)
    finally:
        _let_go_of_what_cannot_be_written()


def _outcome(argv: Sequence[str] | None) -> int:
    as_json = "--json" in (sys.argv if argv is None else argv)
    try:
        outcome = cli.main(
            args=None if argv is None else list(argv), prog_name="ktrdr", standalone_mode=False
        )
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is an error of this command, not of the interpreter's exit
        return outcome if isinstance(outcome, int) else Exit.DONE
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _usage(error, as_json)
    except (click.Abort, KeyboardInterrupt):
        return _report(Interrupted("Interrupted."), as_json)
    except KtrdrError as error:
        return _report(error, as_json)
    except SystemExit:
        # Click's way to say that the reader of our output went away (`ktrdr ... | head`).
        return 128 + signal.SIGPIPE
    except OSError as error:
        _trace()
        where = f" ({error.filename})" if error.filename else ""
        return _report(KtrdrError(f"The system refused: {error.strerror or error}{where}."), as_json)
    except Exception as error:  # the process edge: whatever is left is a defect of ours, and says so
        _trace()
        text = f"Internal error, please report it: {type(error).__name__}: {error}"
        return _report(KtrdrError(f"{text}\nKTRDR_LOG_LEVEL=DEBUG shows where it happened."), as_json)


def _spell_what_the_terminal_lacks() -> None:
    """Where the locale is not UTF-8, a name or a job's log may have characters that the terminal has not: they are
    spelt (``\\u0441``), as Python does on stderr, instead of ending the command."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _let_go_of_what_cannot_be_written() -> None:
    """It stays in the stream's buffer, and the interpreter, which tries again at its exit, would end with 120 instead of
    our exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _usage(error: click.ClickException, as_json: bool) -> int:
    if as_json and not isinstance(error, click.exceptions.NoArgsIsHelpError):
        return _report(InvalidInput(error.format_message()), as_json)
    with contextlib.suppress(OSError):
        error.show()
    return error.exit_code


def _report(error: KtrdrError, as_json: bool) -> Exit:
    """Tell it. A stderr that nobody reads, or whose disk is full, takes nothing from the exit code."""
    with contextlib.suppress(OSError):
        click.echo(_as_problem(error) if as_json else _as_text(error), err=True)
    return exit_code(error)


def _as_problem(error: KtrdrError) -> str:
    problem: dict[str, object] = {"type": f"urn:ktrdr:problem:{error.slug}", "detail": error.message}
    if isinstance(error, InvalidInput):
        problem["errors"] = [asdict(fault) for fault in error.errors]
    return json.dumps(problem)


def _as_text(error: KtrdrError) -> str:
    # The API's sentence tells the first fault already, for those who read nothing else.
    faults = [str(fault) for fault in error.errors] if isinstance(error, InvalidInput) else []
    told = [f"  {fault}" for fault in faults if fault not in error.message]
    # The terminal shows ^C on the present line.
    begin = "\n" if isinstance(error, Interrupted) and is_terminal(sys.stderr) else ""
    return begin + "\n".join([f"ktrdr: {error.message}", *told])


def _trace() -> None:
    if os.environ.get("KTRDR_LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exc()
