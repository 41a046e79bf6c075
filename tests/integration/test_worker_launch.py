"""The nursery from the worker's side: preloads that fail, and a nursery that dies first."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.clock import SystemClock
from ktrdr.errors import Unavailable
from ktrdr.operations.bridge import ProgressBridge
from ktrdr.testing.worker_jobs import spec
from ktrdr.workers.host import HostSettings, OperationHost
from ktrdr.workers.launch import Launcher, LaunchMode
from ktrdr.workers.runfolder import RunFolder, Ticket
from support.eventually import until

pytestmark = pytest.mark.integration


def folder_for(root: Path, instruction: str) -> RunFolder:
    folder = RunFolder(root)
    ticket = Ticket(
        operation_id="op",
        attempt=1,
        job="ktrdr.testing.worker_jobs:perform",
        spec=spec(instruction).model_dump_json(),
        cache=str(root / "cache"),
        api_urls="http://127.0.0.1:9",
    )
    folder.prepare(ticket)
    ProgressBridge.create(folder.bridge).close()
    return folder


@pytest.fixture(params=["fork", "single"])
async def launcher(request: pytest.FixtureRequest) -> AsyncIterator[Launcher]:
    mode: LaunchMode = request.param
    made = Launcher(["ktrdr.testing.no_such_module"], mode)
    yield made
    made.close()


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def nurseries() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "ktrdr.workers.nursery" in child.cmdline()]


async def test_a_preload_that_fails_does_not_matter_and_children_report_their_end(
    launcher: Launcher, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, (instruction, code) in enumerate([("count 1", 0), ("exit 5", 5)]):
        folder = folder_for(tmp_path / str(number), instruction)
        child = await launcher.launch(folder.root, None)
        how = await child.exited
        child.release()
        assert (how.killed_by, how.code) == (None, code)
        assert how.peak_rss > 1 << 20
        assert (folder.outcome() is not None) is (code == 0)
    assert "no_such_module cannot be imported ahead of the jobs" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says whom it kills for want of memory")
async def test_a_job_goes_before_its_worker_where_memory_is_wanted(
    launcher: Launcher, tmp_path: Path
) -> None:
    child = await launcher.launch(folder_for(tmp_path / "run", "stubborn").root, None)
    expected = min(oom_score(os.getpid()) + 500, 1000)
    await until(lambda: oom_score(child.pid) == expected)
    child.kill()
    await child.exited
    child.release()


async def test_a_nursery_that_dies_first_is_replaced(launcher: Launcher, tmp_path: Path) -> None:
    launcher.warm()
    [nursery] = nurseries()
    nursery.kill()
    await until(lambda: not nursery.is_running())
    child = await launcher.launch(folder_for(tmp_path / "run", "count 1").root, None)
    assert (await child.exited).code == 0
    child.release()


async def test_nurseries_that_always_die_are_told(tmp_path: Path) -> None:
    launcher = Launcher([], program=["/bin/false"])
    with pytest.raises(Unavailable, match="could not be started"):
        await launcher.launch(tmp_path, None)
    launcher.close()


async def test_a_job_that_cannot_be_started_is_told_as_a_death(tmp_path: Path) -> None:
    launcher = Launcher([], program=["/bin/false"])
    cache = FileArtifactStore(tmp_path / "cache")
    settings = HostSettings(api_urls="http://127.0.0.1:9")
    host = OperationHost(launcher, tmp_path / "scratch", cache, settings, SystemClock())
    run = host.begin("op", 1, spec("count 1"))
    assert (run.pid, run.progress(), run.metrics(0)) == (None, None, ([], 0))
    ending = await run.ended
    assert ending.status == "child_died"
    assert "could not be started" in str(ending.error)
    launcher.close()


async def test_closing_ends_nursery_and_children(launcher: Launcher, tmp_path: Path) -> None:
    child = await launcher.launch(folder_for(tmp_path / "run", "stubborn").root, None)
    await until((tmp_path / "run" / "job.log").read_bytes)
    launcher.close()
    assert nurseries() == []
    await until(lambda: not psutil.pid_exists(child.pid))
    child.release()
