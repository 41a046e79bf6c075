"""What control groups say, in both versions, in containers and in services."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.workers.cgroup import core_limit, groups, memory_limit, oom_kills


def _group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def test_nothing_is_known(mount: Path, own: Path) -> None:
    assert groups("memory", mount, own) == [mount]
    assert memory_limit(mount, own) is None
    assert oom_kills(mount, own) == 0
    assert core_limit(mount, own) is None


def test_a_container_sees_its_group_as_the_root(mount: Path, own: Path) -> None:
    own.write_text("0::/docker/0123\n")  # that folder is the host's
    _group(mount, memory__max="max\n")
    assert memory_limit(mount, own) is None
    _group(mount, memory__max="1073741824\n", memory__events="low 0\noom 9\noom_kill 4\noom_group_kill 1\n")
    assert memory_limit(mount, own) == 1 << 30
    assert oom_kills(mount, own) == 4


def test_a_service_has_a_group_of_its_own_in_groups_that_may_be_tighter(mount: Path, own: Path) -> None:
    own.write_text("0::/system.slice/ktrdr.service\n")
    _group(mount, memory__events="oom_kill 99\n")
    _group(mount / "system.slice", memory__max="4096\n", memory__events="oom_kill 50\n")
    _group(mount / "system.slice" / "ktrdr.service", memory__max="8192\n", memory__events="oom_kill 2\n")
    assert memory_limit(mount, own) == 4096
    assert oom_kills(mount, own) == 2, "those of others are not ours"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", None), ("200000 100000", 2.0), ("50000 100000", 0.5), ("150000 100000", 1.5), ("", None), ("x y", None),
     ("100000", None), ("100000 0", None)],
)  # fmt: skip
def test_a_container_has_a_share_of_the_cores(
    quota: str, cores: float | None, mount: Path, own: Path
) -> None:
    own.write_text("0::/docker/0123\n")
    _group(mount, cpu__max=f"{quota}\n")
    assert core_limit(mount, own) == cores


def test_the_tightest_group_around_a_service_counts_for_cores_too(mount: Path, own: Path) -> None:
    own.write_text("0::/system.slice/ktrdr.service\n")
    _group(mount / "system.slice", cpu__max="100000 50000\n")
    _group(mount / "system.slice" / "ktrdr.service", cpu__max="400000 100000\n")
    assert core_limit(mount, own) == 2.0


@pytest.mark.parametrize(("quota", "cores"), [("-1", None), ("300000", 3.0), ("25000", 0.25)])
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_cores_in_version_one(
    controllers: str, quota: str, cores: float | None, mount: Path, own: Path
) -> None:
    own.write_text(f"4:memory:/jobs/one\n1:{controllers}:/jobs/two\n0::/\n")
    _group(mount / "cpu" / "jobs" / "two", cpu__cfs_quota_us=f"{quota}\n", cpu__cfs_period_us="100000\n")
    _group(mount / "cpu" / "jobs" / "one", cpu__cfs_quota_us="1000\n", cpu__cfs_period_us="100000\n")
    assert core_limit(mount, own) == cores


def test_version_one(mount: Path, own: Path) -> None:
    own.write_text("9:name=systemd:/x\n4:memory:/jobs/one\n1:cpu:/\n0::/\n")
    unlimited = "9223372036854771712\n"
    _group(mount / "memory", memory__limit_in_bytes=unlimited)
    _group(
        mount / "memory" / "jobs" / "one",
        memory__limit_in_bytes="2048\n",
        memory__oom_control="under_oom 0\noom_kill 3\n",
    )
    assert memory_limit(mount, own) == 2048
    assert oom_kills(mount, own) == 3


def test_a_path_that_leads_out_is_not_followed(mount: Path, own: Path) -> None:
    own.write_text("0::/../../etc\n")
    assert groups("memory", mount, own) == [mount]


def test_this_process_has_groups() -> None:
    assert oom_kills() >= 0
    assert (memory_limit() or 1) > 0
