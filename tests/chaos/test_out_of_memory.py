"""The kernel kills a job for want of memory: it is said, nothing is run again, and the worker goes on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chaos.conftest import Plan
from chaos.faults import jobs_of
from support.bounds import within
from support.chaos import PROGRAM, Chaos, no_tracebacks
from support.processes import finished, parts, wait_for

LIMIT_MB, WANTED_MB = 400, 2_000
BOUND_S = 10.0  # a second, where nobody else is at work
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def _small_group() -> Iterator[Path]:
    """A control group whose processes may use 400 MB together."""
    below, limit = (V1, "memory.limit_in_bytes") if V1.is_dir() else (V2, "memory.max")
    group = below / f"ktrdr-chaos-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(
            f"no control group can be made here ({error.strerror}); root may, where it is mounted writable"
        )
    try:
        try:
            (group / limit).write_text(str(LIMIT_MB << 20))
            (group / "cgroup.procs").write_text("")
        except FileNotFoundError:
            pytest.skip("the memory controller is not on for groups of ours")
        except OSError:
            pass  # nobody is no process
        yield group
    finally:
        for _ in range(100):  # a group can be removed when its last process is gone
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def test_a_job_that_the_kernel_kills_for_want_of_memory(tmp_path: Path, plan: Plan) -> None:
    with _small_group() as group, parts(tmp_path) as running:
        go = tmp_path / "go"
        chaos = Chaos(running, hog=f"hog {WANTED_MB} {go}", quick="late")
        running.backend()
        program = f"import os\nopen({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n{PROGRAM}"
        settings = {"WORKER_ID": "small", "KTRDR_HOME": str(running.home), "KTRDR_API_URL": running.url}
        part = running.start("small", ["-c", program], settings, program=())
        running.wait_worker("small", "available", part)
        with running.api() as api:
            (shown,) = api.get("/workers")["workers"]
            assert shown["capabilities"]["memory_gb"] == 0.4, "what its group may use"
            hog = chaos.submit(api, "hog")
            [job] = wait_for(lambda: jobs_of(part), "the job's process")
            go.touch()
            wait_for(lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE, "it is killed")
            with within("job's process out of memory"):
                view = finished(api, hog)
            ended = time.monotonic()
            assert (view["status"], view["attempt"]) == ("failed", 1), view["story"]
            for told in (
                "killed for want of memory",
                "SIGKILL",
                f"limit {LIMIT_MB / 1024:.2f} GiB",
                "Use fewer bars",
            ):
                assert told in view["error"], view["error"]
            after = finished(api, chaos.submit(api, "quick"))
            took_s = time.monotonic() - ended
            assert (after["status"], after["worker_id"]) == ("completed", "small"), after
            assert took_s < BOUND_S
        assert part.process.poll() is None, "the worker itself lives"
        no_tracebacks(running)
    plan.tell(
        f"a job killed for want of memory: {view['error']} The worker did the next one after {took_s:.1f} s"
    )
