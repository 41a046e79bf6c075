"""What the kernel's control groups say: how much memory and how many cores this process may use, and how often it killed
for want of memory.

Version 2 and version 1; in a container, where our group is mounted as the root, and in a service of systemd
(``MemoryMax=``), where it is far below.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["core_limit", "groups", "memory_limit", "oom_kills"]

_MOUNT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60


def groups(controller: str, mount: Path = _MOUNT, own: Path = _OWN) -> list[Path]:
    """The folders of this process's group and of those around it that are visible, innermost first.

    ``controller`` is ``memory`` or ``cpu``; version 1 has a tree of groups for each.
    """
    found: list[Path] = []
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controller if controllers else mount
        inner = root / path.lstrip("/")
        if ".." not in path:
            found += [group for group in (inner, *inner.parents) if group.is_relative_to(root)]
    found += [mount / controller, mount]  # where the path of a container's group is that of its host
    return [group for group in dict.fromkeys(found) if group.is_dir()]


def memory_limit(mount: Path = _MOUNT, own: Path = _OWN) -> int | None:
    """Bytes that this process and those beside it in the tightest group may use; None where nothing limits them."""
    limits = [
        int(text)
        for group in groups("memory", mount, own)
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(group / name).strip()).isdecimal()
    ]
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def core_limit(mount: Path = _MOUNT, own: Path = _OWN) -> float | None:
    """Seconds of CPU a second that the tightest group may use, such as 1.5; None where nothing limits them."""
    limits: list[float] = []
    for group in groups("cpu", mount, own):
        version_1 = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
        for told in (_read(group / "cpu.max"), version_1):
            match told.split():
                case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
                    limits.append(int(quota) / int(period))
    return min(limits, default=None)


def oom_kills(mount: Path = _MOUNT, own: Path = _OWN) -> int:
    """How many processes of this group were killed for want of memory."""
    for group in groups("memory", mount, own):
        for name in ("memory.events", "memory.oom_control"):
            for line in _read(group / name).splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
