"""Wall clocks are set an hour forward or back under a running fleet: nothing ends early, nothing lasts longer."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chaos.conftest import Plan
from chaos.fleet import Fleet, fleet
from ktrdr.cli.client import Api
from support.bounds import LEASES, kept
from support.chaos import no_tracebacks
from support.processes import advancing, wait_for

SOURCE = Path(__file__).with_name("wall_clock.c")
JUMP_S = 3600.0
EVENT = "wall clock jumps by an hour, in either direction"
LOST_S = 30.0  # within this somebody else has the work of a worker that stands still; the lease is 4 s


class Dial:
    """The wall clock of the processes that get :attr:`environment`; their monotonic clock is the machine's."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler is installed (Debian: apt-get install gcc libc6-dev)")
        library, self._file = folder / "wall_clock.so", folder / "offset"
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"],
            check=True,
            timeout=60,
        )
        self._file.write_bytes(struct.pack("d", 0.0))
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(self._file)}

    def set(self, seconds: float) -> None:
        """From now on they are so far ahead of everybody else."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", seconds))


def _worker(api: Api, name: str) -> dict[str, Any]:
    return next(w for w in api.get("/workers")["workers"] if w["worker_id"] == name)


def _jumped(made: Fleet, dial: Dial, jump_s: float) -> None:
    """Set the clock and wait until the backend has probed by it."""
    dial.set(jump_s)

    def seen() -> bool:
        with made.parts.api() as api:
            heard = datetime.fromisoformat(_worker(api, "w1")["last_healthy_at"])
        return abs((heard - datetime.now(UTC)).total_seconds() - jump_s) < 60

    wait_for(seen, f"the backend's clock is {jump_s:+.0f} s off")


@pytest.mark.parametrize("jump_s", [JUMP_S, -JUMP_S])
def test_the_wall_clock_jumps(jump_s: float, tmp_path: Path, plan: Plan) -> None:
    dial = Dial(tmp_path)
    with fleet(tmp_path / "fleet", plan.random("clock"), backend=dial.environment) as made:
        made.worker("w1", **dial.environment)
        with made.parts.api() as api:
            first = made.chaos.submit(api, "endless")
            advancing(api, first)
            _jumped(made, dial, jump_s)
            made.enough.touch()
            view = made.check([first])[first]
            assert (view["attempt"], view["failures"]) == (1, 0), f"no lease ended early: {view['story']}"

            made.enough.unlink()
            made.worker("w2", **dial.environment)
            lost = made.chaos.submit(api, "endless")
            holder = made.workers[advancing(api, lost)["worker_id"]]
            holder.signal(signal.SIGSTOP)
            dial.set(0.0)  # once more, in the other direction
            began = time.monotonic()
            wait_for(lambda: api.get(f"/operations/{lost}")["attempt"] == 2, "another worker has it", LOST_S)
            took_s = kept(EVENT, time.monotonic() - began, LEASES)
            holder.signal(signal.SIGCONT)
            made.enough.touch()
            assert made.check([lost])[lost]["failures"] == 1
        made.converged()
        no_tracebacks(made.parts)
    plan.tell(
        f"wall clocks set by {jump_s:+.0f} s and back: a silent worker's lease ended after {took_s:.1f} s"
    )
