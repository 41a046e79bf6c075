"""``python -m simulation.mutants``: bugs planted one by one in a copy of the sources; the simulation must find each."""

# ruff: noqa: T201 - a command speaks by printing

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from simulation.bugs_access import ACCESS_BUGS
from simulation.bugs_backend import BACKEND_BUGS
from simulation.bugs_checkpoints import CHECKPOINT_BUGS
from simulation.bugs_choice import CHOICE_BUGS
from simulation.bugs_company import COMPANY_BUGS
from simulation.bugs_machine import MACHINE_BUGS
from simulation.bugs_people import PEOPLE_BUGS
from simulation.bugs_queue import QUEUE_BUGS
from simulation.bugs_upkeep import UPKEEP_BUGS
from simulation.bugs_waiting import WAITING_BUGS
from simulation.bugs_worker import WORKER_BUGS
from simulation.mutant import Mutant, plant

__all__ = ["MUTANTS", "main"]

MUTANTS = (
    *MACHINE_BUGS,
    *BACKEND_BUGS,
    *CHOICE_BUGS,
    *PEOPLE_BUGS,
    *WAITING_BUGS,
    *WORKER_BUGS,
    *COMPANY_BUGS,
    *CHECKPOINT_BUGS,
    *ACCESS_BUGS,
    *UPKEEP_BUGS,
    *QUEUE_BUGS,
)
_LIKELY = {  # the seeds that found them; whatever changes the course of a run changes these
    "workers of a withdrawn token stay": 90,
    "a lost worker forgets the cancel": 3,
    "cancel lost during dispatch": 7,
    "expiry is checked, then set": 13,
    "a refusal counts as a loss": 3,
    "what its worker ended is adopted again": 3,
    "a result from any worker counts": 2,
    "paused operations are dispatched": 4,
    "drained workers are chosen": 2,
    "a registration undoes a drain": 9,
    "a reservation outlives an assignment that was not recorded": 24,
    "a renewal in the ledger does not count": 3,
    "a vouching that is not written does not count": 3,
    "an outbox is acknowledged and thrown away": 2,
    "workers of any version get work": 2,
    "what a worker lost goes to it again": 6,
    "nobody is told that a worker is free": 9,
    "cancelling all passes over what runs": 2,
    "cancelling all takes what waits for what runs": 2,
    "a pause is forgotten at a restart of the backend": 4,
    "leases never end": 3,
    "an outdated attempt is started": 3,
    "an acknowledged end waits for ever": 3,
    "the fence does not compare epochs": 7,
    "a follower dispatches": 4,
    "a leader that lost the lock goes on": 4,
    "a leader that follows goes on to deliver": 7,
    "a follower keeps no idempotency keys": 4,
    "a second term goes on with the leases of the first": 4,
    "no attempt check on checkpoints": 29,
    "a resume takes damaged checkpoints": 2,
    "a checkpoint is recorded unverified": 4,
    "no attempt check on dead children": 3,
    "the retry counter is in the backend's memory": 3,
    "a follower runs retention": 4,
    "a follower collects artifacts": 4,
}
_TESTS = Path(__file__).parents[1]
_FOUND = re.compile(r"seed (\d+): [^\n]*\n  BROKEN (.*)", re.DOTALL)
_CRASHED = 2


@dataclass(frozen=True, slots=True)
class _Hunt:
    """What became of one planted bug. ``how`` is None if every law held."""

    mutant: Mutant
    how: str | None
    wall_s: float


def _hunt(mutant: Mutant, seeds: int) -> _Hunt:
    """Run seeds until a law breaks: first the one that found this bug once, then the others in order."""
    began = time.monotonic()
    likely = _LIKELY.get(mutant.name, 1)
    order = [likely, *(seed for seed in range(1, seeds + 1) if seed != likely)][:seeds]
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join([str(plant(mutant, Path(folder))), str(_TESTS)])
        # a copy with a bug in it is not the program whose coverage is inherited
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        command = [sys.executable, "-m", "simulation", "--seeds", ",".join(map(str, order)), "--stop"]
        done = subprocess.run(
            command,
            env={**inherited, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    wall_s = time.monotonic() - began
    if (broken := _FOUND.search(done.stdout)) is not None:
        return _Hunt(mutant, f"seed {broken[1]}: {' '.join(broken[2].split())[:120]}", wall_s)
    if done.returncode != 0:
        raise RuntimeError(f"The simulation itself failed on '{mutant.name}':\n{done.stderr[-2000:]}")
    return _Hunt(mutant, None, wall_s)


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every bug was found, 1 if one survived, 2 if one could not be planted."""
    parser = argparse.ArgumentParser(prog="simulation.mutants")
    parser.add_argument("--seeds", type=int, default=200, help="at most so many for each bug")
    parser.add_argument("--jobs", type=int, default=2, help="bugs that are hunted at the same time")
    parser.add_argument("--only", default="", help="bugs with this in their name")
    chosen = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if chosen.only in mutant.name]
    missed = 0
    with ThreadPoolExecutor(chosen.jobs) as pool:
        hunts = [(mutant, pool.submit(_hunt, mutant, chosen.seeds)) for mutant in mutants]
        for mutant, hunt in hunts:
            try:
                found = hunt.result()
            except (ValueError, RuntimeError) as error:
                pool.shutdown(cancel_futures=True)
                print(f"FAILED  {mutant.name}: {error}")
                return _CRASHED
            missed += found.how is None
            word = "found " if found.how else "MISSED"
            print(
                f"{word}  {found.mutant.name}: {found.how or 'every law held'} ({found.wall_s:.0f} s)",
                flush=True,
            )
    print(f"{len(mutants) - missed} of {len(mutants)} planted bugs found")
    return 1 if missed or not mutants else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
