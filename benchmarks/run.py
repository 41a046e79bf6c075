"""Measure everything and print one table: what, target, measured, met, CPU seconds, ratio to the baseline, notes.

Run: ``make bench`` or ``python benchmarks/run.py [MODULE ...] [--record]``. Each module is measured in a fresh
process with numerical libraries held to one thread, one after the other. A target that is missed is shown and
changes nothing; a benchmark that breaks is shown as ERROR and makes the exit code 1. ``--record`` writes the figures
to ``baseline.json``; ``--tiny`` runs every measuring function at a size that proves nothing but that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from table import Failure, Row, render

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"
MODULES = (
    "bench_backtest",
    "bench_features",
    "bench_simulate",
    "bench_training",
    "bench_checkpoints",
    "bench_bridge",
    "bench_platform",
    "bench_control",
    "bench_cli",
)
CONTROL = (  # `make bench-control`: the control plane under load, a quarter of an hour and more
    "control.submit",
    "control.probes",
    "control.watchers",
    "control.queue",
    "control.soak",
    "bench_ledger",
)
LIMIT_S = 300.0  # a machine that is busy beyond use; none takes a minute on an idle one
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 if a benchmark broke."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.tiny and options.record:
        parser.error("--record keeps real figures; --tiny makes none")
    if options.answer is not None:
        return _answer(options.modules[0], options.answer, tiny=options.tiny)
    outcomes: list[Row | Failure] = []
    for module in options.modules or (CONTROL if options.control else MODULES):
        print(f"{module} ...", file=sys.stderr, flush=True)
        outcomes += measure(module, tiny=options.tiny, limit_s=options.limit_s)
    baseline = {} if options.tiny else read_baseline(BASELINE)
    print(render(outcomes, baseline))
    print("Tiny sizes: these figures say nothing." if options.tiny else verdict(outcomes))
    if options.json is not None:
        rows = [asdict(outcome) for outcome in outcomes if isinstance(outcome, Row)]
        options.json.write_text(json.dumps(rows, indent=1))
    if options.record:
        record(BASELINE, outcomes, datetime.now(UTC))
    return exit_code(outcomes)


def exit_code(outcomes: Sequence[Row | Failure]) -> int:
    """1 if a benchmark broke; a missed target is a figure and no fault."""
    return 1 if any(isinstance(outcome, Failure) for outcome in outcomes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; default: all")
    parser.add_argument("--control", action="store_true", help=f"instead of all: {', '.join(CONTROL)}")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="for each module; then it is ended")
    parser.add_argument("--record", action="store_true", help="write these figures to baseline.json")
    parser.add_argument("--tiny", action="store_true", help="at tiny sizes: only to see that all of it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument(
        "--answer", type=Path, help=argparse.SUPPRESS
    )  # the fresh process writes its rows there
    return parser


def measure(module: str, *, tiny: bool = False, limit_s: float = LIMIT_S) -> list[Row] | list[Failure]:
    """The rows of one module, measured in a fresh process; a Failure if it has none to give."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # a database server that a benchmark starts may have to run as another user
        answer = Path(folder) / "rows.json"
        command = [sys.executable, str(HERE / "run.py"), module, "--answer", str(answer)]
        command += ["--tiny"] if tiny else []
        code, said = _run_group(
            command, os.environ | dict.fromkeys(_ONE_THREAD, "1") | {"TMPDIR": folder}, limit_s
        )
        if code is None:
            return [Failure(module, f"did not end within {limit_s:.0f} s")]
        if code != 0 or not answer.exists():
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            sys.stderr.write(said)
            return [Failure(module, f"exit code {code}: {last}")]
        rows = [Row(**fields) for fields in json.loads(answer.read_text())]
        return rows or [Failure(module, "gave no rows")]


def _run_group(
    command: Sequence[str], environment: Mapping[str, str], limit_s: float
) -> tuple[int | None, str]:
    """Exit code and what it said on stderr; None if it was not over in time. Nothing of its group is left."""
    with subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate(timeout=limit_s)[1]
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, said


def _answer(module: str, answer: Path, *, tiny: bool) -> int:
    rows: Iterable[Row] = importlib.import_module(module).rows(tiny=tiny)
    answer.write_text(json.dumps([asdict(row) for row in rows]))
    return 0


def verdict(outcomes: Sequence[Row | Failure]) -> str:
    """One line: how many targets were met, and what broke."""
    met = [outcome.met for outcome in outcomes if isinstance(outcome, Row) and outcome.met is not None]
    broken = [outcome.module for outcome in outcomes if isinstance(outcome, Failure)]
    line = f"{sum(met)} of {len(met)} targets met"
    return f"{line}; broken: {', '.join(broken)}" if broken else line


def read_baseline(path: Path) -> Mapping[str, float]:
    """Figures by row key; none if nothing was recorded yet."""
    if not path.exists():
        return {}
    figures: dict[str, float] = json.loads(path.read_text())["figures"]
    return figures


def record(path: Path, outcomes: Sequence[Row | Failure], now: datetime) -> None:
    """Keep the figures of this run; rows that were not measured keep what they had."""
    figures = {**read_baseline(path)}
    figures |= {row.key: float(f"{row.measured:.4g}") for row in outcomes if isinstance(row, Row)}
    content = {
        "recorded": now.date().isoformat(),
        "machine": f"{os.cpu_count()} cores",
        "note": "medians of one run; see docs/explanation/benchmarks.md",
        "figures": figures,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
