"""``python -m simulation.mutants``: planted bugs, each in a copy of the sources, each to be found by the simulation."""

# ruff: noqa: T201 - a command speaks by printing

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTANTS", "Mutant", "planted"]

_SOURCES = Path(__file__).parents[2] / "src" / "ktrdr"
_TESTS = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: in ``file`` below src/ktrdr, ``old`` (found exactly once) becomes ``new``."""

    name: str
    file: str
    old: str
    new: str


_MACHINE, _MOVES = "operations/machine.py", "operations/moves.py"
_MEMORY, _SLOT, _COURIER = "operations/memory.py", "workers/slot.py", "workers/delivery.py"
_REGISTRY, _DISPATCH = "backend/registry.py", "backend/dispatcher.py"
_HEALTH, _SERVICE = "backend/health.py", "backend/operations.py"
_ENROL, _WIRING, _SUBMIT = "backend/enrolment.py", "backend/wiring.py", "backend/orchestrator.py"

MUTANTS = (
    Mutant(
        "no attempt check on results",
        _MACHINE,
        "event.assignment != operation.assignment",
        "not isinstance(event, Finished) and event.assignment != operation.assignment",
    ),
    Mutant(
        "no attempt check on progress",
        _MACHINE,
        "event.assignment != operation.assignment",
        "not isinstance(event, Progressed) and event.assignment != operation.assignment",
    ),
    Mutant(
        "a result from any worker counts",
        _SERVICE,
        'assignment = Assignment(worker_id, instance or "", delivery.attempt)',
        'assignment = operation.assignment or Assignment(worker_id, "", delivery.attempt)',
    ),
    Mutant(
        "a late probe reopens what has failed",
        _MACHINE,
        "    if operation.status.terminal or _is_stale(operation, event):\n",
        "    if isinstance(event, Progressed) and operation.status is FAILED:\n        return moves.run(operation, event, Moment(now, max_failures))\n    if operation.status.terminal or _is_stale(operation, event):\n",
    ),
    Mutant(
        "a late result reopens what has failed",
        _MACHINE,
        "    if operation.status.terminal or _is_stale(operation, event):\n",
        "    if isinstance(event, Finished) and operation.status is FAILED and not _is_stale(operation, event):\n        return moves.finish(operation, event, Moment(now, max_failures))\n    if operation.status.terminal or _is_stale(operation, event):\n",
    ),
    Mutant(
        "cancel guard dropped",
        _MACHINE,
        "        Finished: _ALL_CANCELLED,",
        "        Finished: _go(moves.finish, *_ENDS),",
    ),
    Mutant(
    Mutant(
        "cancel lost while pending",
        _MACHINE,
        "CancelRequested: _go(moves.cancel_pending, CANCELLED)",
        "CancelRequested: _IGNORED",
    ),
    Mutant(
        "cancel lost during dispatch",
        _MACHINE,
        "ASSIGNED: {**_HELD, Refused",
        "ASSIGNED: {**_HELD, CancelRequested: _IGNORED, Refused",
    ),
    Mutant(
        "no lease before the first probe",
        _MOVES,
        "        lease_expires_at=event.lease_expires_at,\n        not_before=None,\n        progress=None,",
        "        lease_expires_at=None,\n        not_before=None,\n        progress=None,",
    ),
    Mutant(
        "expiry is checked, then set",
        _MOVES,
        "moment.now < operation.lease_expires_at:",
        "moment.now < operation.lease_expires_at and moment.max_failures < 0:",
    ),
    Mutant(
        "leases end right after a restart",
        _HEALTH,
        "if now < self.leases_honoured_until:",
        "if now < self.leases_honoured_until and not self._probing:",
    ),
    Mutant(
        "leases never end", _HEALTH, "end is not None and end <= now", "end is not None and end.year < 2000"
    ),
    Mutant(
        "losses forgotten at the next attempt",
        _MOVES,
        "        attempt=attempt,\n",
        "        attempt=attempt,\n        failures=0,\n",
    ),
    Mutant(
        "no limit to losses",
        _MOVES,
        "    if failures < moment.max_failures:\n",
        "    if failures < 100 * moment.max_failures:\n",
    ),
    Mutant(
        "attempts keep their number",
        _MOVES,
        "    attempt = operation.attempt + 1\n",
        "    attempt = max(operation.attempt, 1)\n",
    ),
    Mutant(
        "progress goes back",
        _MOVES,
        "(new.percentage, new.items_done) < (old.percentage, old.items_done)",
        "new.items_total < 0",
    ),
    Mutant("what its worker ended is adopted again", _MOVES, "instance_id=None, **counts", "**counts"),
    Mutant(
        "slot of a crashed worker stays taken",
        _REGISTRY,
        "if old.record.instance_id == record.instance_id:",
        "if old.record.worker_id == record.worker_id:",
    ),
    Mutant(
        "slot stays taken after the end",
        _SERVICE,
        "        self._registry.release(operation.worker_id, operation_id, operation.attempt)\n",
        "",
    ),
    Mutant(
        "drained workers are chosen",
        _REGISTRY,
        "if worker.record.draining or worker.drains_itself:",
        "if worker.drains_itself:",
    ),
    Mutant(
        "workers that leave are chosen",
        _REGISTRY,
        "if worker.record.draining or worker.drains_itself:",
        "if worker.record.draining:",
    ),
    Mutant("dead workers are chosen", _REGISTRY, "and w.verified and w.failures == 0", "and w.verified"),
    Mutant(
        "workers nobody has probed are chosen",
        _REGISTRY,
        "and w.verified and w.failures == 0",
        "and w.failures == 0",
    ),
    Mutant(
        "a registration undoes a drain",
        _REGISTRY,
        "            record = replace(record, draining=old.record.draining)\n",
        "            pass\n",
    ),
    Mutant(
        "202 before the commit",
        _SUBMIT,
        "            operation = await use.store.submit(new, use.clock.now())\n",
        "            from ktrdr.operations.machine import new_operation\n\n            asyncio.ensure_future(use.store.submit(new, use.clock.now()))\n            operation = new_operation(new, use.clock.now())\n",
    ),
    Mutant(
        "delivery acknowledged before the commit",
        _SERVICE,
        "        transition = await self.apply(delivery.operation_id, _event_of(delivery, assignment))\n",
        '        self._fleet.spawn(self.apply(delivery.operation_id, _event_of(delivery, assignment)), "late")\n        return\n',
    ),
    Mutant(
        "dispatched before the commit",
        _DISPATCH,
        "        assignment = await self._assign(operation, worker)\n",
        '        early = Assignment(worker.worker_id, worker.record.instance_id, operation.attempt + 1)\n        self._fleet.spawn(self.deliver(operation, early), "early")\n        assignment = await self._assign(operation, worker)\n',
    ),
    Mutant(
        "assigned without a reservation",
        _DISPATCH,
        "        self._registry.reserve(worker, operation.operation_id, operation.attempt + 1)\n",
        "",
    ),
    Mutant(
        "the dispatcher is not woken",
        _DISPATCH,
        "        self._woken.set()\n",
        "        self._woken.clear()\n",
    ),
    Mutant(
        "idempotency keys are forgotten",
        _MEMORY,
        "            self._keys[new.idempotency_key] = new.operation_id\n",
        "            pass\n",
    ),
    Mutant(
        "a restarted worker's work is not given up",
        _ENROL,
        '            await self._health.lose(request.worker_id, request.instance_id, "it restarted")\n',
        "",
    ),
    Mutant(
        "a training's model is not listed",
        _SERVICE,
        "            await self._record_model(transition.operation, training)\n",
        "            pass\n",
    ),
    Mutant(
        "known progress piles up",
        _SERVICE,
        "            self.progress.forget(operation_id)\n",
        "            pass\n",
    ),
    Mutant(
        "a worker starts an attempt twice",
        _SLOT,
        "if known is not None and attempt == known.run.attempt:",
        "if known is not None and attempt == -known.run.attempt:",
    ),
    Mutant(
        "an acknowledged end waits for ever",
        _SLOT,
        '        if entry.delivery == "sending":\n            entry.delivery = "done" if acknowledged else "waiting"',
        '        entry.delivery = "done" if acknowledged else "waiting"',
    ),
    Mutant(
        "a result is forgotten while the backend is away",
        _COURIER,
        "        except (KtrdrError, OSError) as error:\n            if not self._complained:",
        "        except (KtrdrError, OSError) as error:\n            self._outbox.remove(key)\n            if not self._complained:",
    ),
)


def planted(mutant: Mutant, folder: Path) -> Path:
    """A copy of the sources below ``folder`` with the bug in it; the path that goes into PYTHONPATH.

    Raises
    ------
    ValueError
        If the text to be replaced is not there exactly once: the mutant is out of date.
    """
    shutil.copytree(_SOURCES, folder / "ktrdr", ignore=shutil.ignore_patterns("__pycache__", "sample_data"))
    file = folder / "ktrdr" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"Mutant '{mutant.name}': its place is {text.count(mutant.old)} times in {mutant.file}."
        )
    file.write_text(text.replace(mutant.old, mutant.new))
    return folder


def caught(mutant: Mutant, seeds: int) -> str | None:
    """How the simulation noticed the bug, or None."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join([str(planted(mutant, Path(folder))), str(_TESTS)])
        done = subprocess.run(
            [sys.executable, "-m", "simulation", "--seeds", f"1-{seeds}", "--stop", "--demand-all"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    if (broken := re.search(r"seed (\d+): [^\n]*\n  BROKEN ([^\n]*)", done.stdout)) is not None:
        return f"seed {broken[1]}: {broken[2][:110]}"
    if done.returncode == 3:
        return done.stdout.splitlines()[-1]
    if done.returncode != 0:
        raise RuntimeError(f"The simulation itself failed on '{mutant.name}':\n{done.stderr[-2000:]}")
    return None


def main(arguments: list[str]) -> int:
    """Returns 0 if every bug was caught."""
    parser = argparse.ArgumentParser(prog="simulation.mutants")
    parser.add_argument("--seeds", type=int, default=200, help="at most so many for each bug")
    parser.add_argument("--only", default="", help="bugs with this in their name")
    chosen = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if chosen.only in mutant.name]
    missed = 0
    for mutant in mutants:
        how = caught(mutant, chosen.seeds)
        missed += how is None
        print(f"{'caught' if how else 'MISSED'}  {mutant.name}: {how or 'every law held'}", flush=True)
    print(f"{len(mutants) - missed} of {len(mutants)} planted bugs caught")
    return 1 if missed or not mutants else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
